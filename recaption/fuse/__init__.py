"""Stored captions merged into one by a language model; no picture is opened."""
