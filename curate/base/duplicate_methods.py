"""Names of the ways in which two samples are near each other, as tables and rules spell them."""

METHODS = ("exact", "near", "embedding")
"""From the narrowest to the widest; each level of a selection takes those before it too."""
WIDEST = "widest"
"""The level that takes every pair that was found."""
