"""How pictures are noised and what a network learns: flow, DDPM schedules, EDM."""
