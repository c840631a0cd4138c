"""Models of transformers, in this process or behind a server, that are asked about a picture."""
