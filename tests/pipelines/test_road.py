"""The whole road on a small synthetic web: real HTTP, the shipped models."""

import shutil

import pyarrow.parquet as pq
import pytest

from curate.store.accounting import accounting
from pipelines.ablation.run import ablate
from pipelines.commands.curate import curate
from pipelines.commands.recaption import dry_run, recaption
from pipelines.commands.train import TrainCommandSettings, train
from pipelines.demo.answer import answer_of, bounds_text, plain_answer
from pipelines.demo.demo import (
    KINDS,
    RULES,
    SELECTION,
    ablate_settings,
    curate_settings,
    recaption_settings,
)
from pipelines.demo.ground_truth import caption_checks, checks_text, curation_checks
from pipelines.report.build import write_report


def test_every_row_of_the_list_is_accounted_for(curated, small_web):
    counts = accounting(curated)
    assert counts["balanced"]
    assert counts["rows"] == small_web.settings.rows
    assert set(counts["reasons"]) >= {"too_small", "http_404", "connection_refused"}


def test_curation_finds_what_is_wrong_with_the_web(curated, small_web):
    checks = {check.check: check for check in curation_checks(curated, small_web.truth, RULES)}
    for name, check in checks.items():
        if name.startswith("download"):
            assert (check.precision, check.recall) == (1.0, 1.0), name
    assert checks["duplicate pairs: exact"].recall == 1.0
    near = checks["duplicate pairs: near"]
    assert near.precision >= 0.9, near
    assert near.recall >= 0.94, near
    assert checks["filter: clip similarity"].recall > 0.8
    assert "against ground truth" in checks_text(list(checks.values()))


def test_captions_tell_what_the_pictures_show(curated, small_web):
    (source,) = [name for name in curated.caption_sources() if name != "alt"]
    for check in caption_checks(curated, small_web.truth, KINDS, source):
        assert check.precision > 0.9, check


def test_every_selected_sample_has_one_outcome_for_each_kind(curated):
    keys = curated.selection_keys(SELECTION)
    found = (
        curated.connect()
        .execute("SELECT key, kind, count(*) FROM captions WHERE kind <> 'alt' GROUP BY ALL")
        .fetchall()
    )
    assert sorted(found) == sorted((key, kind, 1) for key in keys for kind in KINDS)


def test_running_again_repeats_nothing(curated, small_web):
    tables = sorted(curated.directory.glob("tables/**/*.parquet"))
    before = [path.stat().st_mtime_ns for path in tables if "duplicate" not in str(path)]
    # The server is gone: anything that would be fetched again would fail.
    curate(small_web.urls, curated.directory, curate_settings(small_web.settings))
    recaption(curated.directory, recaption_settings(small_web.settings))
    after = [path.stat().st_mtime_ns for path in tables if "duplicate" not in str(path)]
    assert before == after


def test_a_rehearsal_of_recaptioning_tells_rate_and_stores_nothing(curated, small_web):
    before = sorted(curated.directory.glob("tables/captions/**/*"))
    # With another seed they are other captions, of which none is written yet.
    settings = recaption_settings(small_web.settings).model_copy(update={"seed": 1})
    text = dry_run(curated.directory, settings, 4)
    assert "8 captions of 4 pictures" in text
    assert sorted(curated.directory.glob("tables/captions/**/*")) == before


@pytest.fixture(scope="module")
def ablation(curated, small_web, tmp_path_factory):
    """The demo's study with a tiny model."""
    demo = small_web.settings.model_copy(update={"seeds": 2, "scenes": 8, "noises": 1})
    settings = ablate_settings(demo, small_web.truth).model_copy(
        update={
            "train": {"model": "tiny-test", "steps": 4, "resolution": 32},
            "allow_unknown_words": True,
        }
    )
    out = tmp_path_factory.mktemp("run") / "ablation"
    # It derives captions, and other files read the same web.
    shutil.copytree(curated.directory, out.parent / "data")
    return settings, out, ablate(out.parent / "data", out, settings)


def test_the_demo_s_study_asks_in_every_wording_and_for_pairs_never_trained_on(ablation, small_web):
    settings, out, summary = ablation
    images = pq.read_table(out / "results" / "images.parquet")
    asked = pq.read_table(out / "prompts.parquet").to_pylist()
    assert images.num_rows == 3 * 2 * len(asked)
    assert {(row["form"], row["wording"]) for row in asked} == {
        *(("descriptive", name) for name in ("captioner", "varied", "place-first", "typed")),
        *(("short", name) for name in ("captioner", "varied", "typed")),
    }
    assert {row["held_out"] for row in asked} == {True, False}
    trained = set(pq.read_table(small_web.truth).column("scene").to_pylist())
    assert trained.isdisjoint(row["intent"] for row in asked if row["form"] == "descriptive")
    contrasts = pq.read_table(out / "results" / "contrasts.parquet").to_pylist()
    declared = [row for row in contrasts if row["declared"]]
    assert [(row["arm_a"], row["arm_b"]) for row in declared] == [
        ("descriptive", "alt"),
        ("descriptive", "shuffled"),
    ]
    assert all(len(row["per_seed"]) == settings.seeds[-1] + 1 for row in declared)
    assert len(summary.headline) == 3
    bounds = bounds_text(out).splitlines()
    assert [line.split()[0] for line in bounds[1:]] == ["descriptive"] * 2 + ["short"] * 2


def test_arms_of_one_seed_train_on_the_same_pictures_and_realise_their_blend(ablation):
    _, out, _ = ablation
    blend = pq.read_table(out / "results" / "blend.parquet").to_pylist()
    alt = [row for row in blend if row["arm"] == "alt"]
    assert [row["share_realised"] for row in alt] == [1.0, 1.0]
    for seed in (0, 1):
        receipts = [pq.read_table(path) for path in out.glob(f"runs/*/seed-{seed}/receipt.parquet")]
        drawn = [table.group_by("key").aggregate([("draws", "sum")]) for table in receipts]
        assert len(drawn) == 3
        assert len({str(table.sort_by("key").to_pylist()) for table in drawn}) == 1


def test_the_demo_s_sentence_says_no_more_than_its_tests(ablation):
    _, out, _ = ablation
    sentence = answer_of(out)  # after four steps
    assert sentence.count("not shown") == 3
    assert "says nothing of photographs" in sentence
    rows = {
        name: [{**row, "claimed": True, "difference": 0.3} for row in table.to_pylist()]
        for name in ("contrasts", "equivalence")
        if (table := pq.read_table(out / "results" / f"{name}.parquet"))
    }
    assert "not shown" not in plain_answer(rows["contrasts"], rows["equivalence"])


def test_training_leaves_a_pipeline_for_diffusers(curated, tmp_path):
    settings = TrainCommandSettings(
        selection=SELECTION, model="tiny-test", steps=3, captions={"descriptive": 1.0}, cpus=1
    )
    summary = train(curated.directory, tmp_path / "run", settings)
    assert (summary.directory / "pipeline" / "model_index.json").exists()
    assert train(curated.directory, tmp_path / "run", settings).steps == 3


def test_the_report_of_the_whole_road_is_one_file(curated, ablation, tmp_path):
    _, out, _ = ablation
    path = write_report(tmp_path / "report.html", dataset_dir=curated.directory, run_dir=out)
    assert path.stat().st_size > 100_000
