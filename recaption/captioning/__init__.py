"""The recaption stage: from pictures without captions to rows of the captions table."""
