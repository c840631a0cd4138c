"""What every room stands on: errors, settings, files, threads, weights. Knows no dataset."""
