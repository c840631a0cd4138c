"""Training of the copy descriptor (curate.copy_descriptor)."""
