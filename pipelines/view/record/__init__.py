"""Single pictures in the view: the whole record of one, its copies, its captions, and marks."""
