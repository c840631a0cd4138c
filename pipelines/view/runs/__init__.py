"""A training run or a study in the view: curves, grids, receipts; arms by prompt."""
