import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pipelines.bench.commands import bench
from pipelines.bench.duplicates.accuracy import known_duplicates
from pipelines.bench.duplicates.edited_photographs import (
    is_photographic,
    write_edited_photographs,
)
from pipelines.bench.duplicates.photo_edits import EDITS
from pipelines.make_weights.photographs import is_held_out, photograph_files
from tests.curate.tiny import drawn


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(24):
        Image.fromarray(drawn(seed, 240, 180)).save(folder / f"{seed}.jpg", quality=90)
    return folder


def test_the_benchmark_says_recall_false_pairs_and_cost(photographs: Path) -> None:
    arguments = ["duplicates", "--photographs", str(photographs), "--limit", "2", "--no-peers"]
    done = CliRunner().invoke(bench, [*arguments, "--json"], catch_exceptions=False)
    # Progress goes to stderr; stdout is for programs.
    figures = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    for edit in EDITS:
        assert f"duplicates/hashes/{edit}/recall" in figures
    near = [figures[f"duplicates/near/{edit}/recall"]["value"] for edit in EDITS]
    assert np.mean(near) > 0.97
    assert figures["duplicates/near/crop_off_8/recall"]["goal"] == 0.99
    assert figures["duplicates/near/crop_off_10/recall"]["goal"] == 0.9
    assert figures["duplicates/photographs"]["value"] == 24
    assert figures["duplicates/near/false_pairs"]["value"] == 0
    assert figures["duplicates/near/false_pairs_with_edits"]["value"] == 0
    assert figures["duplicates/cpu_per_image"]["value"] > 0


def test_a_pair_that_nobody_looked_at_counts_as_false_and_is_named(
    photographs: Path, tmp_path: Path
) -> None:
    for seed in (3, 4):
        Image.fromarray(drawn(seed, 240, 180)).save(tmp_path / f"original{seed}.png")
    Image.fromarray(drawn(3, 240, 180)).save(tmp_path / "again.jpg", quality=50)
    arguments = ["duplicates", "--photographs", str(tmp_path), "--limit", "0", "--no-peers"]
    done = CliRunner().invoke(bench, arguments, catch_exceptions=False)
    assert "false pair (near, originals): again.jpg | original3.png" in done.output
    assert "original4" not in done.output


def test_only_held_out_photographs_are_edited_and_the_seed_decides_how(
    photographs: Path, tmp_path: Path
) -> None:
    made = [
        write_edited_photographs(tmp_path / name, [photographs], 3, seed)
        for name, seed in (("a", 1), ("again", 1), ("b", 2))
    ]
    assert len(made[0].edited) == 3
    assert all(is_held_out(made[0].files[number]) for number in made[0].edited)
    contents = [[file.read_bytes() for file in each.edits("text")] for each in made]
    assert contents[0] == contents[1] != contents[2]


def test_two_fifths_of_the_files_are_held_out() -> None:
    share = np.mean([is_held_out(Path(f"{number}.jpg")) for number in range(4000)])
    assert 0.37 < share < 0.43


def test_known_duplicates_name_photographs_that_exist(real_data: Path) -> None:
    files = photograph_files([real_data / name for name in ("openstax", "18f", "recipes")])
    names = {file.name for file in files}
    known = known_duplicates()
    assert set(known.values()) == {"same", "sibling"}
    assert {name for pair in known for name in pair} <= names


def test_published_edits_are_found_and_turns_are_told_apart(real_data: Path) -> None:
    from pipelines.bench.duplicates.published import published_figures

    found = published_figures(real_data / "neardup")
    figures = {figure.name: figure for figure in found}
    assert figures["duplicates/published/edits"].value == 49
    assert figures["duplicates/published/recall"].met
    assert figures["duplicates/published/false_pairs"].value == 0


def test_a_chart_is_told_from_a_photograph_by_its_flat_paper() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    assert is_photographic(Image.fromarray(noise))
    chart = np.full((300, 400, 3), 255, np.uint8)
    chart[100:120] = noise[100:120]
    assert not is_photographic(Image.fromarray(chart))
