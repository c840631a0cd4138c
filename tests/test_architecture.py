"""The house: three workshops and one hall, rooms in the order of a sample's road, no circles."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "curate": {"curate"},
    "recaption": {"recaption", "curate"},
    "train": {"train", "curate"},
    "pipelines": {"pipelines", "train", "recaption", "curate"},
}
# A room imports only rooms that stand before it (docs/architecture.md draws them).
ROAD = {
    "curate": "base pictures store intake download served scoring duplicates selection search "
    "export",
    "recaption": "gates structured prompts measure engines captioning human fuse transforms "
    "fit upsample judging",
    "train": "model_settings protocols sources presets samplers settings meter objectives "
    "optimizer latents text backbones model distributed adapters data checkpoints assemble sample "
    "export validation loop run",
    "pipelines": "terminal world make_weights runners statistics judges ablation report view "
    "commands demo bench cli",
}
RAY = "pipelines.runners"
MOST_FILES, MOST_LINES = 18, 400
# What makes a command slow to answer; settings are read before anything is known to be needed.
HEAVY = ["torch", "transformers", "open_clip", "diffusers", "pyarrow", "duckdb", "faiss", "numba"]
HEAVY += ["scipy", "numpy", "PIL", "cv2", "ray", "aiohttp", "datasets", "img2dataset", "pandas"]


@cache
def modules() -> Mapping[str, Path]:
    """Dotted name -> file, of all that is shipped."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in MAY_IMPORT
        for path in sorted((ROOT / package).rglob("*.py"))
    }


@cache
def imports(module: str) -> frozenset[str]:
    """What a file imports anywhere: inside functions and for types as well."""
    names = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (inner & set(modules())) or {node.module}
    return frozenset(names)


def room(module: str) -> str:
    """`curate.scoring` of `curate.scoring.scorers.clip`; a package's own file is no room."""
    return ".".join(module.split(".")[:2])


def arrows(package: str) -> Iterator[tuple[str, str]]:
    """(from, to) of the imports inside a package, module by module."""
    for module in modules():
        if module.split(".")[0] == package:
            for name in imports(module):
                if name.split(".")[0] == package and name in modules():
                    yield module, name


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_from_the_hall_to_the_workshops_and_never_back(package: str):
    for module in modules():
        if module.split(".")[0] == package:
            ours = {name.split(".")[0] for name in imports(module)} & set(MAY_IMPORT)
            assert ours <= MAY_IMPORT[package], f"{module} imports {ours - MAY_IMPORT[package]}"


@pytest.mark.parametrize("package", ROAD)
def test_no_arrow_runs_up_the_road(package: str):
    order = [f"{package}.{name}" for name in ROAD[package].split()]
    up = [
        f"{module} imports {name}"
        for module, name in arrows(package)
        if room(module) != room(name)
        and package not in (module, name)
        and order.index(room(name)) > order.index(room(module))
    ]
    assert not up


def test_no_module_imports_itself_by_way_of_others():
    graph = {module: imports(module) & set(modules()) - {module} for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_ray_is_in_one_folder():
    strangers = [
        module
        for module in modules()
        if any(name.split(".")[0] == "ray" for name in imports(module))
        and not module.startswith(RAY)
    ]
    assert not strangers


def test_a_folder_is_a_concept_and_a_file_one_idea():
    crowded = {
        str(folder.relative_to(ROOT)): count
        for folder in {path.parent for path in modules().values()}
        if (count := sum(path.name != "__init__.py" for path in folder.glob("*.py"))) > MOST_FILES
    }
    long = {
        str(path.relative_to(ROOT)): count
        for path in modules().values()
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert (crowded, long) == ({}, {})


def test_settings_import_nothing_heavy():
    names = [name for name in modules() if name.rpartition(".")[2].endswith("settings")]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        f"    found = [heavy for heavy in {HEAVY!r} if heavy in sys.modules]\n"
        "    assert not found, f'{name} imports {found}'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-300:]


def test_importing_every_module_of_the_workshops_loads_no_ray():
    names = [name for name in modules() if name.split(".")[0] != "pipelines"]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "assert 'ray' not in sys.modules, 'ray was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_trainer_imports_without_the_packages_that_gpu_images_lack():
    absent = ("ray", "diffusers", "open_clip", "faiss", "duckdb", "img2dataset", "transformers")
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({absent!r}))\n"
        "import train.loop, train.objectives, train.model, train.sample, train.settings"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_only_the_dataset_makes_scans_of_parquet():
    # DuckDB's defaults read neighbours, and columns out of folders' names.
    scanning = {
        module
        for module, path in modules().items()
        if "read_parquet" in path.read_text(encoding="utf-8").replace("pd.read_parquet", "pandas")
    }
    assert len(scanning) == 1
    assert scanning.pop().startswith("curate.store.")
