"""Structured captions: objects with attributes and places as JSON, and the same in prose."""
