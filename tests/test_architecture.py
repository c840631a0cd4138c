"""The house: three workshops and one hall, and imports that run one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "curate": {"curate"},
    "recaption": {"recaption", "curate"},
    "train": {"train", "curate"},
    "pipelines": {"pipelines", "train", "recaption", "curate"},
}


def imported_names(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere, inside functions as well."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_from_the_hall_to_the_workshops_and_never_back(package: str):
    for path in (ROOT / package).rglob("*.py"):
        ours = imported_names(path) & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[package], f"{path} imports {ours - MAY_IMPORT[package]}"


@pytest.mark.parametrize("package", ["curate", "recaption", "train"])
def test_no_workshop_names_ray(package: str):
    for path in (ROOT / package).rglob("*.py"):
        assert "ray" not in imported_names(path), f"{path} imports ray"


@pytest.mark.parametrize("package", ["curate", "recaption", "train"])
def test_importing_every_module_of_a_workshop_loads_no_ray(package: str):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / package).rglob("*.py"))
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "assert 'ray' not in sys.modules, 'ray was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_trainer_imports_without_the_packages_that_gpu_images_lack():
    absent = ("ray", "diffusers", "open_clip", "faiss", "duckdb", "img2dataset", "transformers")
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({absent!r}))\n"
        "import train.loop, train.objective, train.shards, train.sample, train.settings"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_only_the_dataset_makes_scans_of_parquet():
    # DuckDB's defaults read neighbours, and columns out of folders' names.
    scanning = {
        str(path.relative_to(ROOT))
        for package in MAY_IMPORT
        for path in (ROOT / package).rglob("*.py")
        if "read_parquet" in path.read_text(encoding="utf-8").replace("pd.read_parquet", "pandas")
    }
    assert scanning == {"curate/store/dataset.py"}
