"""Pictures and captions on their way to the model: index, order, draws, caches, receipt."""
