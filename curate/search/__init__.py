"""Search by text and by picture over the stored CLIP embeddings."""
