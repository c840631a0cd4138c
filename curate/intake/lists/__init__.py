"""The lists that a dataset is made of: what is on record of each, and how a further one joins."""
