"""A selection with one caption a picture, written as others read it.

settings    what to export and how
plan        which samples, in which order, with which caption; who is left out and why
pictures    the pictures' bytes out of the dataset's tars, by their place
layouts     WebDataset, Parquet and folders (Hugging Face, kohya sd-scripts, SimpleTuner)
card        the dataset card: funnel, scores, provenance
run         joins them; a killed export continues
"""
