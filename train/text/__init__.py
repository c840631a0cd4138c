"""Captions in, features out: words of the world's own, or any published text encoder."""
