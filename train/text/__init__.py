"""Captions in, features out: words of the world's own, or any published text encoder."""

from train.text.build import build_text

__all__ = ["build_text"]
