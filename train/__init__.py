"""Train text-to-image diffusion models on curated shards. Never imports Ray."""
