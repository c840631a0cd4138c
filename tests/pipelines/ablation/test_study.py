"""Every part of a study is found and checked before a step is trained."""

from pathlib import Path

import pytest

from curate.base.errors import CaplabError, ConfigError
from curate.base.settings import load_settings
from curate.store.dataset import Dataset
from pipelines.ablation.plan import plan
from pipelines.ablation.settings import AblateSettings, Arm
from pipelines.ablation.study import Study, prepare, train_settings
from pipelines.commands.train import TrainCommandSettings
from pipelines.commands.train import plan as plan_training
from pipelines.world.weights import clip_dir
from tests.train.data.small_dataset import add_captions, add_scores, make_dataset, select

TINY = {"model": "tiny-test", "resolution": 32}
LESS = {"arm": "alt", "than": "short", "form": "short", "margin": 0.05}
SHORT = {"scenes": 4, "forms": ["descriptive", "short"], "wordings": ["captioner"]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Forty pictures of 32 px with alt texts, short and descriptive captions, and a score."""
    made = make_dataset(tmp_path_factory.mktemp("study") / "dataset", 40, sizes=((32, 32),))
    keys = made.selection_keys("all")
    select(made, "half", keys[:20])
    add_scores(made, aesthetic={key: float(n) for n, key in enumerate(keys)})
    return made


def study(**changes: object) -> AblateSettings:
    given = {"selection": "all", "train": TINY, "prompts": SHORT, "allow_unknown_words": True}
    return load_settings(AblateSettings, None, {**given, **changes})


def prepared(dataset: Dataset, tmp_path: Path, **changes: object) -> Study:
    return prepare(dataset.directory, study(**changes), tmp_path / "out")


def test_a_dry_run_tries_every_part_and_writes_no_study(dataset: Dataset, tmp_path: Path) -> None:
    sets = {"mixed": {"of": "descriptive", "rule": "shuffle"}}
    arms = {"alt": {"alt": 1.0}, "mixed": {"mixed": 1.0}}
    text = plan(dataset.directory, study(arms=arms, caption_sets=sets), tmp_path / "out")
    assert "2 arms, 6 of arms and seeds, 6 runs of 8 steps, 2 side by side, on cpu" in text
    assert "judged by world; " in text
    assert "A step takes " in text
    assert "mixed (shuffle of descriptive):\n    " in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"primary": {"metric": "object_hits"}}, "did you mean 'object_hit'"),
        ({"primary": {"form": "shrt"}}, "did you mean 'short'"),
        ({"primary": {"wording": "typde"}}, "wording 'typde' that primary names"),
        ({"primary": {"metric": "position", "form": "short"}}, "not defined on short prompts"),
        ({"prompts": {"exclude_scenes": "nowhere.parquet"}}, "nowhere.parquet does not exist"),
        ({"prompts": {"scene": 4}}, "did you mean 'scenes'"),
        ({"prompts": "nowhere.jsonl"}, "nowhere.jsonl does not exist"),
        ({"judges": "wrld"}, "no judges named 'wrld'"),
        ({"judges": {"clip": {"model": "local-dir:/nowhere"}}}, "nowhere"),
        (
            {"judges": ["world", "pipelines.judges.world:WorldJudge"]},
            "both give the metric",
        ),
        ({"train": {**TINY, "device": "cuda:7"}}, "'cuda:7', but torch finds"),
        ({"train": {"model": "tiny-tests"}}, "did you mean 'tiny-test'"),
        ({"arms": {"a": {"dense": 1.0}}}, "caption of kind 'dense'"),
        ({"arms": {"a": {"captions": {"alt": 1.0}, "selection": "best"}}}, "'best'"),
        (
            {"arms": {"a": {"captions": {"alt": 1.0}, "ask": {"aesthetic": 1.0}}}},
            "trained without condition_on",
        ),
        ({"caption_sets": {"x": {"of": "dense", "rule": "shuffle"}}}, "no dense captions"),
        ({"interactions": [{"arms": ["alt", "short"], "forms": ["short", "long"]}]}, "'long'"),
        ({"no_worse": [{**LESS, "margin": 5}]}, "can lose the margin 5"),
        ({"no_worse": [{**LESS, "metric": "objct"}]}, "'objct' that no_worse names"),
        ({"no_worse": [{**LESS, "metric": "position"}]}, "form in `no_worse`"),
        ({"no_worse": [{**LESS, "than": "alt"}]}, "worse than itself"),
        ({"contrasts": [["alt", "alt"]]}, "'alt' with itself"),
        ({"contrasts": [["alt", "short"], ["short", "alt"]]}, "stands there twice"),
        ({"trends": {"t": {"alt": 1, "short": 1}}}, "two different doses"),
        ({"seeds": [-1]}, "greater than or equal to 0"),
        ({"train": {**TINY, "weights_seed": 1, "data_seed": 1, "noise_seed": 1}}, "one run"),
    ],
)
def test_what_would_fail_after_training_fails_before_it(
    dataset: Dataset, tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    with pytest.raises(CaplabError, match=sentence):
        prepared(dataset, tmp_path, **change)


def test_a_metric_of_another_judge_may_decide(dataset: Dataset, tmp_path: Path) -> None:
    clip = {"clip": {"model": f"local-dir:{clip_dir()}", "pretrained": None}}
    found = prepared(
        dataset, tmp_path, judges={"world": {}, **clip}, primary={"metric": "clip_similarity"}
    )
    assert [spec.name for spec in found.judges] == ["world", "clip"]


def test_equal_arms_share_runs_and_arms_may_differ_in_their_data(
    dataset: Dataset, tmp_path: Path
) -> None:
    arms = {
        "alt": {"alt": 1.0},
        "same": {"captions": {"alt": 1.0}, "seeds": [0, 7]},
        "half": {"captions": {"alt": 1.0}, "selection": "half"},
        "told": {"captions": {"alt": 1.0}, "condition_on": ["aesthetic"]},
        "best": {
            "captions": {"alt": 1.0},
            "condition_on": ["aesthetic"],
            "ask": {"aesthetic": 1.0},
        },
    }
    cells = {
        (cell.arm, cell.seed): cell
        for cell in prepared(dataset, tmp_path, arms=arms, seeds=[0]).cells
    }
    runs = {place: cell.run.id for place, cell in cells.items()}
    assert runs["alt", 0] == runs["same", 0] != runs["same", 7]
    assert runs["alt", 0].split("/")[0] == runs["same", 7].split("/")[0]
    assert len({runs[name, 0] for name in ("alt", "half", "told")}) == 3
    assert (len(cells["alt", 0].run.keys), len(cells["half", 0].run.keys)) == (40, 20)
    # One model, asked for something else.
    assert runs["told", 0] == runs["best", 0]
    assert cells["told", 0].sampling != cells["best", 0].sampling


def test_an_arm_that_falls_back_needs_one_of_its_kinds_of_a_picture(
    dataset: Dataset, tmp_path: Path
) -> None:
    keys = dataset.selection_keys("all")
    add_captions(dataset, "imported-all", "human", dict.fromkeys(keys[:4], "by a person"))
    people = {"human": 0.5, "short": 0.5}
    arms = {"short": {"short": 1.0}, "people": {"captions": people, "missing_captions": "fallback"}}
    found = prepared(dataset, tmp_path, arms=arms, seeds=[0])
    runs = {cell.arm: cell.run for cell in found.cells}
    assert len(runs["people"].keys) == len(runs["short"].keys) == 40
    assert runs["people"].settings.missing_captions == "fallback"
    strict = prepared(
        dataset, tmp_path, arms={"short": {"short": 1.0}, "people": people}, seeds=[0]
    )
    assert {len(cell.run.keys) for cell in strict.cells} == {4}
    # What the other arm learns from is no other run for it.
    alone = prepared(dataset, tmp_path, arms={"short": {"short": 1.0}}, seeds=[0])
    assert alone.cells[0].run.id == runs["short"].id


def test_a_run_is_what_it_learns_from_and_how_and_neither_its_name_nor_its_drawing(
    dataset: Dataset, tmp_path: Path
) -> None:
    def mark(name: str, **train: object) -> str:
        arms = {name: {"alt": 1.0}}
        return prepared(dataset, tmp_path, arms=arms, train={**TINY, **train}).cells[0].run.mark

    first = mark("alt")
    assert mark("other", guidance_scale=4.0, sampling_steps=2) == first
    preset = tmp_path / "same.yaml"
    preset.write_text("base: tiny-test\n")
    assert mark("alt", model=str(preset)) == first
    assert len({first, mark("alt", steps=9), mark("alt", flip=True)}) == 3


def test_all_arms_of_a_continued_study_keep_the_stored_device_and_precision() -> None:
    stored = {"device": "cpu", "precision": "bf16"}
    arm = Arm(captions={"alt": 1.0})
    kept = train_settings(study(train={"model": "world-small"}), arm, stored)
    assert (kept.device, kept.precision) == ("cpu", "bf16")
    with pytest.raises(ConfigError, match="cannot be continued here"):
        train_settings(study(), arm, {"device": "cuda:9", "precision": "fp32"})


def test_words_outside_the_vocabulary_are_refused_in_captions_and_prompts(
    dataset: Dataset, tmp_path: Path
) -> None:
    model, prompts = tmp_path / "model.yaml", tmp_path / "prompts.jsonl"
    model.write_text(
        "base: tiny-test\nmodel:\n  resolution: 32\n"
        "  text: [{kind: words, tokens: 12, options: {vocabulary_size: 14, width: 32, heads: 2}}]\n"
        "train: {validation_samples: 0}\n"
    )
    narrow = {"train": {"model": str(model)}, "allow_unknown_words": False}
    with pytest.raises(ConfigError, match=r"words of alt captions \(such as ") as caught:
        prepared(dataset, tmp_path, **narrow)
    assert "short captions" not in str(caught.value)
    prompts.write_text('{"prompt": "red gnu", "form": "short"}\n')
    own = {
        "arms": {"short": {"short": 1.0}},
        "prompts": str(prompts),
        "judges": "examples.judge_of_your_own:ColourJudge",
        "primary": {"metric": "colour_share", "form": "short"},
    }
    with pytest.raises(
        ConfigError, match=r"50\.0% of the 2 words of short prompts of .*\(such as gnu"
    ):
        prepared(dataset, tmp_path, **narrow, **own)
    training = TrainCommandSettings(selection="all", model=str(model), captions={"alt": 1.0})
    with pytest.raises(ConfigError, match="say --allow-unknown-words"):
        plan_training(dataset.directory, training)
    allowed = training.model_copy(update={"allow_unknown_words": True})
    assert "words of alt captions" in plan_training(dataset.directory, allowed)
