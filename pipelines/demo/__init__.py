"""`caplab demo`: the whole road on the synthetic world, held against its truth."""
