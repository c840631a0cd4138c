"""The browser and the search: their times on generated datasets."""
