"""Networks: a table of diffusers' classes, and how they start from nothing."""
