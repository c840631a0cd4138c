"""The dataset on disk: its contract, its tables, its shards, and who may write."""
