"""What the instrument costs and what its numbers rest on."""
