"""Rewrite captions with a vision-language model, gated for quality. Never imports Ray."""
