"""The weights that come with the code, made again from nothing: `make weights`."""
