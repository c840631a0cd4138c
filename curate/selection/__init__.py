"""Which samples to keep: SQL over stored scores, presets, and copies dropped among what passes."""
