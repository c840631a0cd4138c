"""URLs become files: guarded, polite requests, one shard at a time."""
