"""A dataset, a run or a study looked at in a browser: a server on loopback and its page."""
