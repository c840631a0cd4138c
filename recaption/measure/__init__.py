"""What is measured of captions beside the gates' own rules."""
