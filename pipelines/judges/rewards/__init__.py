"""Reward models in environments of their own."""
