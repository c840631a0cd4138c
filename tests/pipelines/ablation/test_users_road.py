"""The study of photographs that examples/arms-photographs.yaml declares, with tiny models."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from pipelines.cli import cli
from tests.curate.tiny import tiny_clip
from tests.pipelines.judges import tiny_detectors
from tests.recaption import tiny_captioners
from tests.train import roads

pytestmark = pytest.mark.usefixtures("one_process")

ARMS = Path(__file__).parents[3] / "examples" / "arms-photographs.yaml"
CLASSES = ("dog", "cup", "computer mouse", "zebra", "bench")
"""Of GenEval; the detector knows them."""


def geneval(folder: Path) -> Path:
    """Twenty prompts as GenEval's evaluation_metadata.jsonl has them."""
    records: list[dict[str, Any]] = []
    for name, colour in product(CLASSES, ("red", "blue")):
        what = {"class": name, "count": 1, "color": colour}
        prompt = f"a photo of a {colour} {name}"
        records.append({"tag": "colors", "include": [what], "prompt": prompt})
    for name in CLASSES:
        one, two = {"class": name, "count": 1}, {"class": name, "count": 2}
        most = [{"class": name, "count": 3}]
        plain = {"tag": "single_object", "include": [one], "prompt": f"a photo of a {name}"}
        counted = {"tag": "counting", "include": [two], "exclude": most}
        records += [plain, {**counted, "prompt": f"a photo of two {name}s"}]
    path = folder / "evaluation_metadata.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert len(records) == 20
    return path


def called(*parts: object) -> str:
    """What a command prints."""
    result = CliRunner().invoke(cli, [str(part) for part in parts], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The example with places of tiny models of the same architectures, two arms, two seeds."""
    monkeypatch.setattr(tiny_detectors, "NAMES", dict(enumerate(["dog", "cup", "mouse", "zebra"])))
    tiny_detectors.NAMES[4] = "bench"
    clip, weights = tiny_clip(tmp_path / "clip")
    source = roads.published("sd15", tmp_path)
    assert source is not None
    declared: dict[str, Any] = yaml.safe_load(ARMS.read_text())
    assert set(declared["judges"]) == {"detector", "clip", "vqa"}
    del declared["arms"]["short"], declared["judges"]["vqa"]
    declared["contrasts"] = [["descriptive", "alt"]]
    declared["judges"]["detector"] = {
        "model": str(tiny_detectors.build_mask2former(tmp_path / "detector")),
        "threshold": 0.05,
        "colour_model": str(clip),
        "colour_pretrained": str(weights),
    }
    declared["judges"]["clip"] = {"model": str(clip), "pretrained": str(weights)}
    small = {"adamw_learning_rate": 0.01, "steps": 3, "batch_size": 4, "lora_rank": 2}
    assert small.keys() < declared["train"].keys()
    tiny = {name: value for name, value in roads.TINY_RUN.items() if name != "captions"}
    preset = {
        "base": declared["train"]["model"],
        "model": {"source": str(source), "resolution": 32},
    }
    (tmp_path / "sd15.yaml").write_text(yaml.safe_dump({**preset, "train": tiny}))
    own = {"model": str(tmp_path / "sd15.yaml"), "init_from": str(source)}
    declared["train"] |= small | own
    here = {"selection": "all", "seeds": [0, 1], "noises": 1, "prompts": str(geneval(tmp_path))}
    return {**declared, **here, "runner": "local"}


def test_photographs_from_the_written_arms_to_the_report(
    arms: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = roads.make_data(tmp_path / "data").directory
    clip = arms["judges"]["clip"]
    real = {"metrics": ["kid_clip"], "clip": f"{clip['model']}@{clip['pretrained']}"}
    arms["judges"]["real"] = real | {"reference": str(data), "pictures": 12}
    file, out = tmp_path / "arms.yaml", tmp_path / "study"
    file.write_text(yaml.safe_dump(arms, sort_keys=False))
    study = ("ablate", data, "--arms", file, "--out", out)
    told = called(*study, "--dry-run")
    assert "2 arms, 4 of arms and seeds, 4 runs of 3 steps" in told
    assert (
        "20 prompts, 1 picture each, judged by detector, clip, real; still to be drawn: 80" in told
    )
    assert "A step takes " in told
    assert not out.exists()
    assert "GenEval, %" in called(*study)
    images = pq.read_table(out / "results" / "images.parquet")
    assert images.num_rows == 80
    assert set(images["geneval"].to_pylist()) <= {0.0, 1.0}
    groups = pq.read_table(out / "results" / "arms.parquet")["group"].to_pylist()
    assert {"category:colors", "category:counting", "category:single_object"} < set(groups)
    sets = pq.read_table(out / "results" / "sets.parquet")
    assert set(sets["pictures"].to_pylist()) == {12}
    assert list((out / "runs" / "reference-features").iterdir())
    # Models of three steps hit nothing, and what does not vary plans nothing.
    varying = tmp_path / "varying.yaml"
    primary = {"metric": "clip_similarity", "form": "own"}
    varying.write_text(yaml.safe_dump({**arms, "primary": primary}))
    assert "training, drawing and judging" in called(
        "ablate", "--plan", out, "--detect", 0.1, "--arms", varying
    )

    # A judge that looks later, and stays when the study is run again.
    words = ["yes", "Yes", "no", "No", "Does", "show", "photo"]
    monkeypatch.setattr(tiny_captioners, "WORDS", [*tiny_captioners.WORDS, *words])
    vqa = tiny_captioners.build_llava(tmp_path / "vqa")
    assert "VQAScore" in called("judge", out, "--judge", "vqa", "--option", f"model={vqa}")
    assert "VQAScore" in called(*study)
    assert pq.read_table(out / "results" / "images.parquet")["vqa_score"].null_count == 0

    exported = tmp_path / "geneval"
    called("export-images", out, "--layout", "geneval", "--out", exported)
    assert len(list(exported.glob("*/seed-*/*/samples/0000.png"))) == 80
    # The published model itself, before any training.
    source, asked = arms["train"]["init_from"], tmp_path / "evaluate.yaml"
    judges = {"detector": arms["judges"]["detector"]}
    asked.write_text(yaml.safe_dump({"prompts": arms["prompts"], "judges": judges}))
    text = called("evaluate", source, "--config", asked)
    assert "GenEval, %" in text
    called("report", out)
    assert "GenEval" in (out / "report.html").read_text()
