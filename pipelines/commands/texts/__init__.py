"""Commands whose captions come from texts: files that people wrote, captions that are stored."""
