"""What may be a copy of what: hashes and vectors that are near, never all pairs."""
