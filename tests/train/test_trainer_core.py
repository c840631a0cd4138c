"""The trainer's core needs torch, numpy and safetensors; the rest is imported where it is used."""

import subprocess
import sys

HEAVY = ["diffusers", "transformers", "peft", "pyarrow", "duckdb", "pandas", "ray", "wandb"]


def test_the_core_imports_without_what_only_some_runs_use() -> None:
    core = "train.loop, train.model, train.objectives, train.checkpoints, train.distributed"
    code = f"import sys, {core}; print(*set({HEAVY}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_one_process_touches_no_process_group() -> None:
    code = (
        "import torch.distributed as group, train.distributed as ours\n"
        "ranks = ours.Ranks.join('cpu'); ranks.barrier(); ranks.leave()\n"
        "assert ranks.first and not group.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
