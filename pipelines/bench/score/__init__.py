"""CLIP scores beside clip-retrieval, Data-Juicer and the bare forward."""
