"""The downloader beside img2dataset."""
