"""The hall: Ray stages, commands, the synthetic world, the caption ablation and its report."""
