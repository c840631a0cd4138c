"""Duplicate search beside imagededup and fastdup, and its growth."""
