"""Short prompts made descriptive, for inference."""
