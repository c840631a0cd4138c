"""Benchmarks and the scripts that feed them. None of this runs in the tests' time."""
