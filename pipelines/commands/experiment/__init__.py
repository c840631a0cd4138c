"""Commands of an experiment with captions, beside those of the road from pictures to a model."""
