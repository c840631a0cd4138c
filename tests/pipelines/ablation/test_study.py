"""Every part of a study is found and checked before a step is trained."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from curate.base.errors import ConfigError, DatasetError
from curate.base.settings import load_settings
from curate.store.claims import claim_directory
from curate.store.dataset import Dataset
from pipelines.ablation.run import plan
from pipelines.ablation.settings import AblateSettings
from pipelines.ablation.study import prepare, train_settings
from pipelines.commands.train import TrainCommandSettings
from pipelines.commands.train import plan as plan_training
from pipelines.world.weights import clip_dir
from tests.recaption.judging.judged_dataset import keys_of, make_dataset, write_captions

SCENES = {"scenes": 4, "train": {"model": "tiny-test", "resolution": 32}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Forty captioned samples, all selected; alt texts that no vocabulary can hold."""
    made = make_dataset(tmp_path_factory.mktemp("study") / "dataset", 40)
    rows = range(40)
    write_captions(made, "alt", {"alt": {row: f"IMG{row}" for row in rows}})
    words = "a small large red blue green ring disc square cross in the top left right bottom on"
    told = dict.fromkeys(rows, f"{words} white black plain ground yellow")
    write_captions(made, "us", {"short": dict.fromkeys(rows, "red ring"), "descriptive": told})
    made.write_selection("default", pa.array(keys_of(made)), {})
    return made


def study(**changes: object) -> AblateSettings:
    return load_settings(AblateSettings, None, {**SCENES, "allow_unknown_words": True, **changes})


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt_form": "short", "prompt": "red ring"}\n')
    return path


def clip(prompts: Path, **changes: object) -> AblateSettings:
    model = {"judge": "clip", "clip_model": f"local-dir:{clip_dir()}", "prompts": str(prompts)}
    primary = {"primary_metric": "clip_similarity", "primary_prompt_form": "short"}
    return study(**{**model, **primary, **changes})


def test_a_dry_run_tells_the_plan_the_device_and_the_unknown_words(dataset: Dataset) -> None:
    text = plan(dataset.directory, study())
    assert "3 arms x 3 seeds = 9 runs of 8 steps, 2 side by side, on cpu in fp32." in text
    assert "12 prompts, judged by world." in text
    assert "0.0% of the 80 words of short captions" in text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"primary_metric": "object_hits"}, "did you mean 'object_hit'"),
        ({"primary_metric": "clip_similarity"}, "world judge has no metric"),
        ({"primary_prompt_form": "shrt"}, "did you mean 'short'"),
        (
            {"primary_metric": "position", "primary_prompt_form": "short"},
            "'position' is not defined on short prompts",
        ),
        ({"exclude_scenes": "nowhere.parquet"}, "nowhere.parquet does not exist"),
        ({"train": {"model": "tiny-test", "device": "cuda:7"}}, "'cuda:7', but torch finds"),
        ({"train": {"model": "tiny-test", "precision": "fp8"}}, "precision = 'fp8'"),
        ({"train": {"model": "tiny-tests"}}, "did you mean 'tiny-test'"),
        ({"train": {"model": "tiny-test", "validation_share": 0}}, "none falls under"),
    ],
)
def test_what_would_fail_after_training_fails_before_it(
    dataset: Dataset, change: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        plan(dataset.directory, study(**change))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"primary_metric": "object_hit"}, "clip judge has no metric 'object_hit'"),
        ({"primary_prompt_form": "descriptive"}, "No prompt has the form 'descriptive'"),
        ({"clip_model": "ViT-B-32", "clip_pretrained": "nowhere.safetensors"}, "nowhere"),
        ({"clip_model": "local-dir:/nowhere"}, "nowhere"),
    ],
)
def test_a_clip_judge_is_loaded_before_a_step(
    dataset: Dataset, prompts: Path, change: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        prepare(dataset.directory, clip(prompts, **change))


def test_other_prompts_in_the_same_file_are_another_study(
    dataset: Dataset, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def claim(path: Path) -> bool:
        record = out / "ablation.json"
        identity = prepare(dataset.directory, clip(path), record).identity
        return claim_directory(out, record, "ablation run", identity, {})

    assert claim(prompts)
    moved = prompts.rename(tmp_path / "moved.jsonl")
    assert not claim(moved), "the same prompts elsewhere are the same study"
    moved.write_text('{"prompt_form": "short", "prompt": "blue ring"}\n')
    with pytest.raises(DatasetError, match="prompts was"):
        claim(moved)


def test_captions_that_were_rewritten_are_another_study(dataset: Dataset, tmp_path: Path) -> None:
    before = prepare(dataset.directory, study()).identity
    copy = tmp_path / "copy"
    shutil.copytree(dataset.directory, copy)
    write_captions(Dataset.open(copy), "us", {"short": dict.fromkeys(range(40), "a blue ring")})
    write_captions(Dataset.open(copy), "more", {"descriptive": dict.fromkeys(range(40), "ring")})
    after = prepare(copy, study()).identity
    assert {name for name in before if before[name] != after[name]} == {"data"}


def test_all_arms_of_a_continued_study_keep_the_stored_device_and_precision() -> None:
    stored = {"device": "cpu", "precision": "bf16"}
    arms = train_settings(study(train={"model": "world-small"}), stored)
    assert {(arm.device, arm.precision) for arm in arms.values()} == {("cpu", "bf16")}
    with pytest.raises(ConfigError, match="cannot be continued here"):
        train_settings(study(), {"device": "cuda:9", "precision": "fp32"})


def test_words_outside_the_vocabulary_are_refused_in_captions_and_prompts(
    dataset: Dataset, prompts: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.yaml"
    model.write_text(
        "base: tiny-test\nmodel:\n  resolution: 32\n"
        "  text: [{kind: words, tokens: 12, options: {vocabulary_size: 24, width: 32, heads: 2}}]\n"
        "train: {validation_samples: 0}\n"
    )
    narrow = {"train": {"model": str(model)}, "allow_unknown_words": False}
    with pytest.raises(ConfigError, match=r"words of alt captions \(such as img") as caught:
        plan(dataset.directory, study(**narrow))
    assert "short captions" not in str(caught.value)
    prompts.write_text('{"prompt": "red gnu"}\n')
    arms = {"arms": {"short": {"short": 1.0}}, "contrasts": [], "primary_prompt_form": "prompt"}
    with pytest.raises(
        ConfigError, match=r"50\.0% of the 2 words of prompt prompts of .*\(such as gnu"
    ):
        plan(dataset.directory, clip(prompts, **{**narrow, **arms}))
    training = TrainCommandSettings(model=str(model), captions={"alt": 1.0})
    with pytest.raises(ConfigError, match="say --allow-unknown-words"):
        plan_training(dataset.directory, training)
    allowed = training.model_copy(update={"allow_unknown_words": True})
    assert "words of alt captions" in plan_training(dataset.directory, allowed)


def test_clip_weights_none_is_understood_in_yaml_as_on_the_command_line(
    prompts: Path, tmp_path: Path
) -> None:
    path = tmp_path / "arms.yaml"
    path.write_text(
        f"judge: clip\nprompts: {prompts}\nclip_model: local-dir:{clip_dir()}\n"
        f"clip_pretrained: none\n"
    )
    assert yaml.safe_load(path.read_text())["clip_pretrained"] == "none"
    assert load_settings(AblateSettings, path).clip_pretrained is None
