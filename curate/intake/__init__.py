"""The ways in: lists of URLs, WebDataset tars, folders of images, Parquet with image bytes.

locations    local paths and s3://, gs://, https:// ... behind one interface
columns      column names of LAION, COYO and DataComp; which of them are scores
rows         one record a row, broken or not, and batches of them for the shards
text_lists   CSV, TSV, JSON lines, JSON and plain text, also gzip, line by line
parquet_lists    Parquet with URLs or with image bytes
tars, folders    pictures with their texts beside them
source       finds out what an input is, and joins the readers
"""
