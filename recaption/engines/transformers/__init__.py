"""Captions by a transformers model in this process."""
