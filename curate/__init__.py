"""Curate image-text pairs: download, score, find duplicates, select. Never imports Ray."""

__version__ = "0.1.0"
