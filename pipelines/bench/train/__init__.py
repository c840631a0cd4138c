"""How fast the trainer is: beside the bare step, beside diffusers' loop, beside the metal."""
