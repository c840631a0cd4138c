"""Whatever writes captions: columns in, outcomes out."""
