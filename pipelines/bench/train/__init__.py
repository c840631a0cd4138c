"""How fast the trainer is, and a small model of latents to train where no hub is."""
