"""A study's pictures in the folders that the official scorers read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from curate.base.errors import ConfigError, DatasetError
from pipelines.ablation.pictures import PICTURES, Asked, keep_asked, webp_of
from pipelines.ablation.settings import AblateSettings
from pipelines.commands.experiment.export_images import command, export_images
from pipelines.judges.prompts import prompts_table

GENEVAL = {"tag": "colors", "include": [{"class": "cup", "count": 1, "color": "red"}]}
PROMPTS = [
    {
        "form": "own",
        "wording": wording,
        "intent_id": f"i{number}",
        "prompt": f"{text}, {wording}",
        "intent": json.dumps({**GENEVAL, "prompt": text, "item_id": f"item{number}"}),
        "category": "colors",
    }
    for wording in ("plain", "typed")
    for number, text in enumerate(["a red cup", "a photo of a cup."])
]
NOISES, SIDE = 4, 8


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms as `caplab ablate` leaves them; each picture is of a colour of its own."""
    out = tmp_path_factory.mktemp("study")
    asked = Asked(prompts_table(PROMPTS), NOISES, 7)
    pq.write_table(asked.prompts, out / "prompts.parquet")
    runs = []
    for arm in ("alt", "short"):
        folder = out / "runs" / f"{arm}-0123456789abcdef" / "seed-0"
        (folder / "pictures").mkdir(parents=True)
        row = {"arm": arm, "seed": 0, "run": f"runs/{arm}-0123456789abcdef/seed-0"}
        runs.append({**row, "run_id": f"{arm}/seed-0", "sampling": {"steps": 2}})
        wanted = asked.of(f"{arm}/seed-0", {"steps": 2})
        keep_asked(folder, wanted)
        webp = [webp_of(colour_of(arm, number)) for number in range(len(wanted))]
        kept = wanted.select(["picture_id", "prompt_id", "noise"]).append_column("webp", [webp])
        pq.write_table(kept.cast(PICTURES), folder / "pictures" / "a.parquet")
    settings = AblateSettings(
        arms={"alt": {"captions": {"alt": 1}}, "short": {"captions": {"short": 1}}},
        noises=NOISES,
        generation_seed=7,
    )
    record = {"runs": runs, "settings": settings.resolved(), "judges": []}
    (out / "study.json").write_text(json.dumps(record))
    return out


def colour_of(arm: str, number: int) -> np.ndarray:
    """Of a row of `Asked.of`: noise by noise, the plain wording's two prompts first."""
    return np.full((SIDE, SIDE, 3), (len(arm) * 10, number * 9, 5), np.uint8)


def shown(path: Path) -> list[int]:
    return list(Image.open(path).getpixel((0, 0)))


def exported(study: Path, layout: str, out: Path) -> Path:
    found = export_images(study, layout, out, wording="plain")
    assert len(found.pictures) == 2
    assert str(found).count(" pictures") == 2
    return out / "short" / "seed-0"


def test_geneval_has_a_folder_a_prompt_with_its_record(study, tmp_path):
    out = exported(study, "geneval", tmp_path / "g")
    second = json.loads((out / "00001" / "metadata.jsonl").read_text())
    assert (second["tag"], second["prompt"]) == ("colors", "a photo of a cup.")
    assert sorted(path.name for path in (out / "00001/samples").iterdir()) == [
        f"{noise:04d}.png" for noise in range(NOISES)
    ]
    # Rows of a noise: two plain, two typed.
    assert shown(out / "00001/samples/0002.png") == [50, (2 * 4 + 1) * 9, 5]


def test_geneval2_maps_the_benchmark_s_prompts_to_pictures(study, tmp_path):
    out = exported(study, "geneval2", tmp_path / "g2")
    places = json.loads((out / "image_paths-3.json").read_text())
    assert list(places) == ["a red cup", "a photo of a cup."]
    assert shown(Path(places["a red cup"])) == [50, 12 * 9, 5]
    assert len(list(out.glob("image_paths*.json"))) == NOISES


def test_t2i_compbench_has_the_prompt_in_the_name(study, tmp_path):
    out = exported(study, "t2i-compbench", tmp_path / "t")
    names = sorted(path.name for path in (out / "samples").iterdir())
    assert names[:4] == [f"a photo of a cup._{number:06d}.png" for number in range(4, 8)]
    assert shown(out / "samples" / "a red cup_000003.png") == [50, 12 * 9, 5]


def test_dpg_has_a_grid_of_four_noises_by_item(study, tmp_path):
    out = exported(study, "dpg", tmp_path / "d")
    assert sorted(path.name for path in out.iterdir()) == ["item0.png", "item1.png"]
    grid = Image.open(out / "item1.png")
    assert grid.size == (2 * SIDE, 2 * SIDE)
    corners = [grid.getpixel(place) for place in ((0, 0), (SIDE, 0), (0, SIDE), (SIDE, SIDE))]
    assert [corner[1] for corner in corners] == [9 * (4 * noise + 1) for noise in range(4)]


def test_a_run_goes_to_a_folder_with_texts_and_metadata(study, tmp_path):
    out = tmp_path / "f"
    run = study / "runs" / "alt-0123456789abcdef" / "seed-0"
    made = CliRunner().invoke(
        command, [str(run), "--layout", "folder", "--out", str(out), "--wording", "typed"]
    )
    assert made.exit_code == 0, made.output
    assert f"{out}: 8 pictures" in made.output
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    for row in rows:
        assert (out / row["file_name"]).with_suffix(".txt").read_text() == row["prompt"]
        assert row["prompt"].endswith("typed")
    assert shown(out / rows[0]["file_name"]) == [30, 2 * 9, 5]


def test_pictures_drawn_in_several_ways_are_told_apart_by_their_study_alone(study, tmp_path):
    folder = study / "runs" / "short-0123456789abcdef" / "seed-0"
    other = tmp_path / "run"
    (other / "pictures").mkdir(parents=True)
    for place in folder.glob("**/*.parquet"):
        (other / place.relative_to(folder)).write_bytes(place.read_bytes())
    asked = Asked(prompts_table(PROMPTS), 1, 7).of("short/seed-0", {"steps": 3})
    keep_asked(other, asked)
    kept = asked.select(["picture_id", "prompt_id", "noise"])
    webp = [webp_of(colour_of("short", 0))] * len(asked)
    pq.write_table(
        kept.append_column("webp", [webp]).cast(PICTURES), other / "pictures" / "b.parquet"
    )
    with pytest.raises(ConfigError, match="in several ways"):
        export_images(other, "folder", tmp_path / "out", wording="plain")


def test_what_cannot_be_exported_is_told(study, tmp_path):
    with pytest.raises(ConfigError, match=r"several wordings \(plain, typed\)"):
        export_images(study, "folder", tmp_path / "a")
    with pytest.raises(ConfigError, match="No prompt has the form 'long'"):
        export_images(study, "folder", tmp_path / "a", form="long")
    with pytest.raises(ConfigError, match="holds something"):
        export_images(study, "folder", study)
    with pytest.raises(DatasetError, match="no study, nor a run"):
        export_images(tmp_path, "folder", tmp_path / "a")
