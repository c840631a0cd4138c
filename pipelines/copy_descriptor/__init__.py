"""Training of the copy descriptor (curate.duplicates.copy_descriptor)."""
