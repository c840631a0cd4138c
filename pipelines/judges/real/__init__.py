"""Sets of pictures beside sets of real ones: distances, neighbours, diversity."""
