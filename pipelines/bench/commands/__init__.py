"""`caplab bench NAME`: the group with all its subcommands."""

from pipelines.bench.commands import data, models
from pipelines.bench.commands.group import bench

# Importing the two has given the group their subcommands.
__all__ = ["bench", "command", "data", "models"]

command = bench
