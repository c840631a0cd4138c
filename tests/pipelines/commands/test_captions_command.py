"""`caplab captions` on a web that was curated and captioned by the shipped models."""

import json

import pytest
from click.testing import CliRunner

from pipelines.cli import cli
from pipelines.commands.captions import captions
from pipelines.demo.ground_truth import caption_checks
from recaption.judging.settings import JudgeSettings

QUICK = JudgeSettings(draws=200, fingerprint_pictures=60, truth="world")


@pytest.fixture(scope="module")
def summary(curated, tmp_path_factory):
    out = tmp_path_factory.mktemp("json") / "captions.json"
    return captions(curated.directory, QUICK, out=out), json.loads(out.read_text())


def test_the_command_measures_every_set_against_the_worlds_truth(summary, curated) -> None:
    found, record = summary
    alt, short, descriptive = found.measures.sets
    assert (alt.set.name, short.set.kind, descriptive.set.kind) == ("alt", "short", "descriptive")
    right = descriptive.rightness
    assert right.precision["object"].value > 0.9
    assert right.recall["object"].value > 0.9
    assert alt.rightness.recall["whole"].value == 0  # alt texts say nothing of places
    assert short.rightness.recall["main"].value > 0.8
    assert descriptive.retrieval.value > short.retrieval.value > 0.1
    assert descriptive.retrieval_shuffled is None or descriptive.retrieval_shuffled.value < 0.1
    assert found.measures.fingerprints[0].accuracy.value > 0.9
    assert record["measures"]["sets"][2]["rightness"]["chair_s"]["value"] < 0.2
    assert record["settings"]["truth"] == "world"


def test_the_demos_checks_are_these_measures_over_all_captions(summary, curated, small_web) -> None:
    found, _ = summary
    _, short, descriptive = found.measures.sets
    source = short.set.source
    checks = caption_checks(curated, small_web.truth, ("short", "descriptive"), source)
    for check, right, kind in (
        (checks[0], short.rightness, "main"),
        (checks[1], descriptive.rightness, "whole"),
    ):
        # Fewer captions than the sample's size: the sample is all there is.
        assert right.pictures == short.counts.accepted
        stated, hits, there, _ = right.counts[kind]
        assert (check.flagged, check.true_positives, check.positives) == (stated, hits, there)


def test_two_sets_are_compared_by_the_names_of_their_kinds(curated) -> None:
    arguments = ["captions", str(curated.directory), "--compare", "descriptive", "short"]
    result = CliRunner().invoke(
        cli, [*arguments, "--truth", "world", "--draws", "200", "--retrieval-groups", "1"]
    )
    assert result.exit_code == 0, result.output
    assert "object recall" in result.output
    assert "retrieval R@1 of 64" in result.output
    assert "a difference of these captions on these pictures" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "nobody"], "Nobody called 'nobody' wrote captions here"),
        (["--kinds", "descriptiv"], "did you mean 'descriptive'"),
        (["--compare", "short", "poem"], "There is no caption set 'poem'"),
        (["--truth", "facts.csv"], "of no known kind"),
        (["--truth", "absent.parquet"], "does not exist"),
        (["--t5-tokenizer", "/"], "The T5 tokenizer / holds neither tokenizer.json"),
        (["--sample", "1"], "sample"),
    ],
)
def test_a_wrong_option_is_one_sentence_before_any_work(curated, options, message) -> None:
    result = CliRunner().invoke(cli, ["captions", str(curated.directory), *options])
    assert result.exit_code != 0
    assert message in str(result.exception or result.output)


def test_without_the_clip_model_everything_else_is_measured_and_the_reason_told(
    curated, tmp_path
) -> None:
    import shutil

    moved = tmp_path / "moved"
    shutil.copytree(curated.directory, moved)
    for record in (moved / "dataset.json", moved / "scores.json"):
        content = record.read_text()
        record.write_text(content.replace("local-dir:", "local-dir:/not-here"))
    settings = JudgeSettings(draws=200, fingerprint_pictures=0)
    found = captions(moved, settings)
    assert found.measures.groups == 0
    assert "R@1 was not measured: /not-here" in found.text()
    assert found.measures.sets[0].sample is not None
