"""What the instrument costs, and whether its statistics keep their promises."""
