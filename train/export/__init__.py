"""A trained model as others read it: a diffusers pipeline with its card."""
