"""Scores of a sample among others, from stored embeddings: negCLIPLoss and NormSim."""
