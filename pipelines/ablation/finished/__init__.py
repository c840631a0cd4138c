"""What finished studies are good for: planning the next one, and comparing two."""
