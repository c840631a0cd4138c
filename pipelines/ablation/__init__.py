"""The caption ablation: the same images and compute, only the captions differ."""
