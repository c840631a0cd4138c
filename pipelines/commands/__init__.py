"""One file a command: its options, its settings, and the function that a notebook calls.

Importing one imports nothing heavy, so that help and a mistyped option answer at once: what the
work needs is imported by the functions that do it.
"""
