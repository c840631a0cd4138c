"""What a set of captions is like, and how right it is: measured without a judge model."""
