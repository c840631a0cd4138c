"""Copies: exact, near and by embedding; which to keep; what is near a reference set."""
