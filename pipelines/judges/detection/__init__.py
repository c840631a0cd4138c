"""What a detector finds in a picture, and what GenEval concludes from it."""
