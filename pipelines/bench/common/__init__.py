"""What all benchmarks share: figures, measured processes, peers, pictures, generated data."""
