"""Scores: one stage that runs scorers over shards, and the scorers."""
