"""Captions of kind `human`: what people wrote, corrected or judged, here or in files."""
