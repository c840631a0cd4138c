"""The committed results: their studies are whole, and what is written says what was found."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.settings import load_settings
from curate.store.captions import accepted_captions, writers_of
from curate.store.check import check
from pipelines.ablation.schemas import DESCRIBING, SETS
from pipelines.ablation.settings import AblateSettings
from pipelines.ablation.tables import study_tables
from pipelines.bench.ablation.caption_scores import _agreement, rank_correlation
from pipelines.bench.ablation.on_gpu import study_on_gpu
from pipelines.bench.ablation.result_pages import Finished, write_index, write_page
from pipelines.bench.ablation.results import SMALL, study_settings
from pipelines.bench.ablation.study_data import EARLY, KINDS, VARIED, write_truth_captions
from pipelines.bench.ablation.study_files import NAMES, question
from pipelines.bench.ablation.variance_account import STUDY, study_of
from pipelines.judges.world import WorldJudge
from pipelines.judges.world_prompts import world_prompts
from pipelines.judges.world_settings import WorldJudgeSettings, WorldPromptSettings
from pipelines.world.scene import WorldConfig, sample_scenes
from pipelines.world.wordings import DESCRIPTIVE
from tests.train.data.small_dataset import make_dataset


@pytest.mark.parametrize("name", NAMES)
def test_a_study_trains_on_captions_that_are_made(name: str, tmp_path: Path) -> None:
    settings = study_settings(name, tmp_path)
    written = {"alt", *KINDS, VARIED, *EARLY}
    for kind, derivation in settings.caption_sets.items():  # in their order
        assert {derivation.of, derivation.like or derivation.of} <= written
        written.add(kind)
    used = {kind for arm in settings.all_arms.values() for kind in arm.captions}
    assert used <= written
    assert settings.runs == str(tmp_path / "runs")
    assert question(name).endswith((".", "?"))
    small = study_settings(name, tmp_path, SMALL)
    assert {len(small.seeds_of(arm)) for arm in small.all_arms} == {1}


def test_a_study_of_the_variance_account_has_its_three_seeds(tmp_path: Path) -> None:
    study = study_of([1, 2, 3], tmp_path, STUDY)
    assert (study.train["weights_seed"], study.train["data_seed"], study.seeds) == (1, 2, (3,))


def test_the_study_for_a_gpu_trains_on_captions_that_are_made(tmp_path: Path) -> None:
    study = study_on_gpu(tmp_path, steps=300)
    assert study.train["steps"] == 300
    assert len(study.seeds) >= 3
    made = {"alt", "descriptive", *study.caption_sets}
    assert {derivation.of for derivation in study.caption_sets.values()} <= made
    assert {kind for arm in study.all_arms.values() for kind in arm.captions} <= made


def test_error_free_captions_are_the_truths_and_say_so(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 12)
    scenes = sample_scenes(WorldConfig.small(), 12, 0, "seen")
    truth = tmp_path / "truth.parquet"
    pq.write_table(pa.table({"scene": [scene.to_json() for scene in scenes]}), truth)
    source = write_truth_captions(dataset, truth, "varied", "varied", seed=3)
    assert write_truth_captions(dataset, truth, "varied", "varied", seed=3) == source
    assert writers_of(dataset, "varied") == [source]
    captions = accepted_captions(dataset, ["varied"])
    assert captions["text"].to_pylist() == DESCRIPTIVE["varied"](scenes, 3)
    told = pq.read_table(dataset.table_path("captions", "00000", source)).to_pylist()[0]
    assert (told["model"], told["engine"]) == ("the truth of a synthetic web", "none")
    assert not [hole for hole in check(dataset).holes if "captions" in hole.path.parts]


def test_a_rank_correlation_has_the_interval_of_its_sets_and_seeds() -> None:
    rng = np.random.default_rng(0)
    scores = np.arange(20.0)
    found, low, high = rank_correlation(scores, [[score, score] for score in scores])
    assert (found, high) == (pytest.approx(1), pytest.approx(1))
    assert low > 0.95
    other = rng.normal(size=(20, 3))
    found, low, high = rank_correlation(scores, other.tolist())
    assert low < found < high
    assert high - low > 0.5


def test_what_a_caption_says_is_held_against_what_is_seen() -> None:
    scenes = sample_scenes(WorldConfig.small(), 30, 0)
    whole = DESCRIPTIVE["captioner"](scenes, 0)
    assert _agreement("x", whole, scenes) == {"x_precision": 1, "x_recall": 1, "x_f1": 1}
    less = _agreement("x", [text.split(", ")[0] for text in whole], scenes)
    assert less["x_precision"] == 1
    assert 0.2 < less["x_recall"] < 0.8
    wrong = _agreement("x", whole[1:] + whole[:1], scenes)
    assert max(wrong.values()) < 0.8


DECLARED = {
    "arms": {"alt": {"alt": 1.0}, "long": {"descriptive": 1.0}, "json": {"json": 1.0}},
    "contrasts": [["long", "alt"]],
    "no_worse": [{"arm": "long", "than": "alt", "form": "short", "margin": 0.05}],
    "interactions": [{"arms": ["long", "alt"], "forms": ["descriptive", "short"]}],
    "trends": {"words": {"alt": 0, "long": 95}},
    "primary": {"metric": "object_forced", "form": "descriptive", "wording": "typed"},
    "seeds": [0, 1, 2],
}
FORMS = ("descriptive", "short", "tags", "json")


def made(name: str) -> Finished:
    """A study whose pictures were never drawn: `long` and `json` hit more often than `alt`."""
    settings = load_settings(AblateSettings, None, DECLARED)
    prompts = world_prompts(WorldPromptSettings(scenes=40, forms=FORMS))
    rng = np.random.default_rng(0)
    parts, runs = [], []
    for arm in settings.all_arms:
        for seed in settings.seeds:
            table = prompts.append_column("noise", pa.array([0] * prompts.num_rows, pa.int64()))
            for column, value in (("arm", arm), ("seed", seed), ("picture_id", "")):
                table = table.append_column(column, pa.array([value] * prompts.num_rows))
            table = table.select(DESCRIBING.names).cast(DESCRIBING)
            share = 0.1 if arm == "alt" else 0.9
            for metric in ("object_forced", "object_hit"):
                hits = (rng.random(prompts.num_rows) < share).astype(float)
                table = table.append_column(metric, pa.array(hits))
            parts.append(table)
            runs.append({"arm": arm, "seed": seed, "run": f"{arm}-0/seed-{seed}", "steps": 3})
    images = pa.concat_tables(parts)
    tables = study_tables(images, None, settings.declaration())
    record = {
        "headline": tables.headline,
        "versions": {"python": "3.11", "torch": "2"},
        "images": 24,
        "arms": [{"name": name} for name in settings.all_arms],
        "device": "cpu",
        "precision": "fp32",
        "limits": ["The pictures are drawn by a program."],
    }
    found = {"images": images, "sets": SETS.empty_table(), "blend": SETS.empty_table()}
    found |= {"bounds": WorldJudge(WorldJudgeSettings()).bounds(prompts, 32), **tables.named()}
    return Finished(name, settings, record, found, prompts, pa.Table.from_pylist(runs))


def test_a_page_tells_the_answer_and_how_it_was_had(tmp_path: Path) -> None:
    study = made("format")
    write_page(tmp_path, study, 90.0, {"wrong-5": 0.048})
    page = (tmp_path / "format.md").read_text()
    assert page.startswith(
        "# The same facts as tags, JSON, prose, short, long or of a random length\n"
    )
    assert "\n- long beats alt on descriptive prompts, " in page
    for told in (
        "9 runs of 3 arms",
        "really changed: wrong-5 4.8%",
        "--study format",
        "1.5 minutes",
        "wording typed",
        "- The pict",
    ):
        assert told in page
    tests = page.partition("## Declared tests")[2].partition("##")[0].splitlines()
    (row,) = [line for line in tests if line.startswith("| long - alt |")]
    assert row.endswith("| yes |")
    declared = pq.read_table(tmp_path / "format" / "contrasts.parquet").to_pylist()[0]
    assert f"| +{100 * declared['difference']:.0f}" in row
    assert "long loses under 5 to alt, short prompts" in page
    own = page.partition("## Asked in its own format")[2].partition("##")[0].splitlines()
    assert [line.split(" | ")[:2] for line in own if line.startswith("| json")] == [
        ["| json", "json, own"]
    ]
    for name in ("arms", "trends", "images"):
        stored = pq.read_table(tmp_path / "format" / f"{name}.parquet")
        assert stored.num_rows == study.tables[name].num_rows


def test_the_index_counts_a_shared_run_once(tmp_path: Path) -> None:
    write_index(tmp_path, [made("main"), made("blend")], {"main": 90.0, "blend": 0.0, "data": 30.0})
    lines = (tmp_path / "README.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith(("| [main]", "| [blend]"))]
    assert [row.split(" | ")[2:5] for row in rows] == [["3", "9", "9"], ["3", "9", "0"]]
    assert any(line.startswith("9 runs, 2.0 minutes") for line in lines)
