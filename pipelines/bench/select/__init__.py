"""Presets and the report on a million rows, beside pandas and DuckDB."""
