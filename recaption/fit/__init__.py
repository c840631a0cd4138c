"""A captioner of one's own: fitted to pairs of picture and caption."""
