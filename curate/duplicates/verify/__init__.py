"""Whether two small pictures show one picture: registration, then a comparison cell by cell."""
