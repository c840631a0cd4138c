"""One interval for everything: seeds as the unit, prompts beside them."""
