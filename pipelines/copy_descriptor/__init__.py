"""Training of the copy descriptor (curate.pictures.copy_descriptor)."""
