"""Scorers: each names the columns it needs and the columns it adds; a graph joins them."""
