"""The report's figures against the tables that they come from."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from report_example import make_demo

from curate.base.errors import ConfigError
from curate.store.contract import CAPTIONS
from pipelines.report.build import write_report
from pipelines.report.data import Inputs, find_inputs
from pipelines.report.sections import (
    accounting,
    caption_sets,
    captions,
    duplicates,
    funnel,
    headline,
    road,
    scores,
    training,
)
from pipelines.report.sections.study import ablation, doses, effects, grids


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return find_inputs(demo_dir=make_demo(tmp_path_factory.mktemp("facts"), 160, prompts=16))


def test_every_row_is_stored_or_failed_with_a_reason(inputs: Inputs) -> None:
    facts = accounting.compute(inputs)
    assert facts is not None
    assert facts.rows == facts.stored + facts.failed == 160
    assert facts.unaccounted == 0
    assert sum(reason.rows for reason in facts.reasons) == facts.failed
    assert all(reason.meaning for reason in facts.reasons)
    assert [(host.host, host.rows) for host in facts.hosts] == [("127.0.0.1", 160)]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Example.ORG:8443/a.jpg", "example.org"),
        ("http://user:secret@example.org/a", "example.org"),
        ("http://[::1]:80/a", "[::1]"),
        ("example.org/no-scheme", "(no host)"),
        (None, "(no host)"),
    ],
)
def test_hosts_are_told_without_port_user_or_password(url: str | None, host: str) -> None:
    connection = Inputs().connection
    sql = f"SELECT {accounting.HOST_SQL} FROM (SELECT ?::VARCHAR AS url)"
    assert connection.execute(sql, [url]).fetchone() == (host,)


def test_the_funnel_ends_at_the_selection(inputs: Inputs) -> None:
    facts = funnel.compute(inputs)
    assert facts is not None
    assert facts.rules[-1].left == facts.selected == inputs.selection_size
    left = facts.stored
    for rule in facts.rules:
        left -= rule.removed_in_order
        assert rule.left == left


def test_a_histogram_counts_every_sample_once_split_by_truth(inputs: Inputs) -> None:
    facts = scores.compute(inputs)
    assert facts is not None
    assert [score.name for score in facts.main] == ["clip_similarity", "aesthetic", "nsfw"]
    for score in facts.main:
        assert score.bins is not None
        assert len(score.bins.counts) == 2
        assert sum(map(sum, score.bins.counts.values())) == score.count
    others = {score.name: score for score in facts.others}
    assert others.keys() == {"blur", "brightness", "text_words", "bytes_per_pixel"}
    assert others["bytes_per_pixel"].count == others["blur"].count, "of every stored sample"
    shown = inputs.rows(f"SELECT bytes_per_pixel FROM {inputs.pictured}")
    assert all(row["bytes_per_pixel"] > 0 for row in shown), "and beside its thresholds"
    assert [name for name, _, _ in facts.flags] == ["text_is_filename"]


def test_pictures_at_a_threshold_are_the_nearest_on_either_side(inputs: Inputs) -> None:
    facts = scores.compute(inputs)
    assert facts is not None
    clip = facts.main[0]
    cut = clip.thresholds[0].value
    below = inputs.rows("SELECT max(clip_similarity) AS x FROM scores WHERE clip_similarity < 0.2")
    (edge,) = clip.edges
    assert edge.cut is not None
    assert edge.cut.selections == ("default",)
    assert [one.kept for one in edge.shown] == [one.score >= cut for one in edge.shown]
    assert max(one.score for one in edge.shown if not one.kept) == below[0]["x"]


def test_groups_of_duplicates_show_the_kept_sample_first(inputs: Inputs) -> None:
    facts = duplicates.compute(inputs)
    assert facts is not None
    assert [method.name for method in facts] == ["exact", "near", "embedding"]
    for method in facts:
        for group in method.shown:
            assert [member.kept for member in group.members] == [True] + [False] * (
                len(group.members) - 1
            )


def test_captions_add_up_by_kind(inputs: Inputs) -> None:
    facts = captions.compute(inputs)
    assert facts is not None
    assert [kind.kind for kind in facts.kinds] == ["short", "descriptive"]
    for kind in facts.kinds:
        assert kind.total == kind.accepted + kind.rejected + kind.failed
    assert sum(reason.total for reason in facts.reasons) == sum(k.rejected for k in facts.kinds)
    assert all(
        [kind for kind, _ in one.captions] == ["short", "descriptive"] for one in facts.shown
    )
    # What people wrote is told by its source: one row, whatever captions and files it is of.
    assert inputs.dataset is not None
    rows = [
        dict.fromkeys(CAPTIONS.names)
        | {"key": f"{n}", "kind": "human", "engine": "human", "model": f"{n}.txt", "status": "ok"}
        for n in range(3)
    ]
    table = pa.Table.from_pylist(rows, CAPTIONS)
    path = inputs.dataset.write_table("captions", table, "00000", "imported-texts")
    facts = captions.compute(inputs)
    path.unlink()
    assert facts is not None
    assert [(k.kind, k.model, k.total) for k in facts.kinds][2:] == [("human", "imported-texts", 3)]


def test_the_road_shows_a_kept_sample_and_why_another_was_dropped(inputs: Inputs) -> None:
    facts = road.compute(inputs)
    assert facts is not None
    assert facts.kept is not None
    assert facts.dropped is not None
    assert facts.kept.broken_rules == []
    assert facts.dropped.broken_rules
    assert facts.drawing is not None
    assert [arm for arm, _ in facts.drawing.arms] == ["alt", "short", "descriptive"]


def test_the_head_repeats_the_runs_own_verdicts(inputs: Inputs) -> None:
    facts = headline.compute(inputs)
    assert facts.sentences == inputs.run_record["headline"]
    assert [tile.arm for tile in facts.tiles[:3]] == ["alt", "short", "descriptive"]
    assert not facts.exploratory


def test_there_is_one_curve_an_arm_and_seed(inputs: Inputs) -> None:
    facts = training.compute(inputs)
    assert facts is not None
    runs = [(curve.run.arm, curve.run.seed) for curve in facts.curves["loss"]]
    assert sorted(runs) == [(arm, s) for arm in ("alt", "descriptive", "short") for s in (0, 1)]
    assert sorted(facts.validation) == ["alt", "descriptive", "empty", "short"]
    assert [len(losses) for losses in facts.validation["empty"].values()] == [2, 2, 2]
    assert len(facts.finished) == 6
    assert facts.grid is None
    assert [blend.declared for blend in facts.blends["descriptive"]] == [0.95, 0.05]


def test_a_single_training_run_has_a_report_of_its_own(inputs: Inputs, tmp_path: Path) -> None:
    run = inputs.train_runs[0].directory
    alone = find_inputs(run_dir=run)
    facts = training.compute(alone)
    assert facts is not None
    assert facts.grid is not None
    assert headline.compute(alone).sentences == ["Trained 700 steps on 1,234 pictures."]
    html = write_report(tmp_path / "run.html", run_dir=run).read_text(encoding="utf-8")
    assert "sample grid after 700 steps" in html


def test_grids_show_the_first_prompts_for_every_arm_and_seed(inputs: Inputs) -> None:
    facts = grids.compute(inputs)
    assert facts is not None
    assert [form for form, _ in facts.forms] == ["descriptive", "upsampled"]
    for _, prompts in facts.forms:
        for prompt in prompts:
            assert prompt.target is not None
            assert [(arm, len(drawn)) for arm, drawn in prompt.arms] == [
                *(("alt", 2), ("short", 2), ("descriptive", 2))
            ]


def test_what_was_declared_is_answered_in_words_and_drawn_by_form_wording_and_group(
    inputs: Inputs,
) -> None:
    facts = effects.compute(inputs)
    assert facts is not None
    said = [answer.sentence for answers in facts.answers.values() for answer in answers]
    assert sorted(said) == sorted(inputs.run_record["headline"])
    assert [(name, len(rows)) for name, rows in facts.by_prompt] == [
        ("descriptive prompts", 3),
        ("descriptive prompts, captioner's wording", 3),
        ("descriptive prompts, varied wording", 3),
        ("short prompts", 3),
        ("upsampled prompts", 3),
    ]
    assert [name for name, _ in facts.by_group][:2] == [
        "pairs never trained on",
        "pairs seen in training",
    ]
    curves = doses.compute(inputs)
    assert curves is not None
    assert curves.arms["detail"]["descriptive"] == 95


def test_malformed_objects_are_reported_apart_from_alignment(inputs: Inputs) -> None:
    facts = ablation.compute(inputs)
    assert facts is not None
    assert facts.panels[0].metrics[0] == facts.study.metric == "object_hit"
    assert facts.panels[0].bounds["object_hit"]["ceiling"] == 1
    assert {name for panel in facts.apart for name in panel.metrics} >= {
        "malformed",
        "hallucinated",
    }
    assert [row["metric"] for row in facts.sets] == ["kid"] * 3


def test_many_arms_mean_fewer_prompts_not_a_larger_file(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grids, "PICTURES", 30)
    facts = grids.compute(inputs)
    assert facts is not None
    assert {len(prompts) for _, prompts in facts.forms} == {2}


def test_a_dataset_alone_has_no_sections_of_a_run(inputs: Inputs, tmp_path: Path) -> None:
    assert inputs.dataset is not None
    alone = find_inputs(dataset_dir=inputs.dataset.directory)
    for section in (training, grids, ablation, effects, doses):
        assert section.compute(alone) is None
    assert headline.compute(alone).sentences[0].startswith("Of 160 input rows")


def test_caption_sets_are_measured_and_two_stand_side_by_side(inputs: Inputs) -> None:
    facts = caption_sets.compute(inputs)
    assert facts is not None
    short, descriptive = facts.measures.sets
    assert (short.set.kind, descriptive.set.kind) == ("short", "descriptive")
    # The example's captions are true of their scenes.
    assert descriptive.rightness is not None
    assert descriptive.rightness.precision["whole"].value == 1
    assert descriptive.rightness.recall["whole"].value == 1
    assert facts.pair is not None
    pair = facts.pair
    assert (pair.comparison.a.kind, pair.comparison.b.kind) == ("descriptive", "short")
    assert pair.measure == "clip_similarity"
    for one in (short, descriptive):
        bins = facts.similarities[one.set.name]
        assert sum(bins.counts[one.set.name]) == one.counts.accepted
    ours, theirs, random = pair.apart.values()
    assert len(ours) == len(theirs) == len(random) == caption_sets.SHOWN
    for sample in (*ours, *theirs):
        ahead = sample in ours
        assert sample.a.similarity is not None
        assert sample.b.similarity is not None
        assert (sample.a.similarity > sample.b.similarity) == ahead


def test_the_sets_to_compare_can_be_named(inputs: Inputs) -> None:
    from dataclasses import replace

    asked = replace(inputs, compared=("short", "descriptive"))
    facts = caption_sets.compute(asked)
    assert facts is not None
    assert facts.pair is not None
    assert (facts.pair.comparison.a.kind, facts.pair.comparison.b.kind) == ("short", "descriptive")
    with pytest.raises(ConfigError, match="There is no caption set 'poem'"):
        caption_sets.compute(replace(inputs, compared=("poem", "short")))


def test_rejected_captions_are_shown_by_reason_the_commonest_first(inputs: Inputs) -> None:
    facts = captions.compute(inputs)
    assert facts is not None
    reasons = [one.reason for one in facts.rejected]
    assert set(reasons) == {reason.reason for reason in facts.reasons}
    assert reasons == sorted(reasons, key=reasons.index)  # those of one reason stand together
    assert max(map(reasons.count, reasons)) <= 2
