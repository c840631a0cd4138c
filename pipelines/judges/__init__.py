"""Did the pictures do what was asked? Judges of single pictures and of sets of them."""
