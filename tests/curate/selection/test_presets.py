"""Every preset on ten samples, with the answers counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curate.base.errors import ConfigError
from curate.selection.preset_list import PRESETS
from curate.selection.presets import describe_presets
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from tests.curate.scored import Row, make_scored

GOOD: Row = {
    "alt_text": "a red house by the lake",
    "original_width": 800,
    "original_height": 600,
    "original_bytes": 90_000,
    "width": 512,
    "height": 384,
    "clip_similarity": 0.30,
    "clip_similarity_b32": 0.32,
    "neg_clip_loss": -0.05,
    "aesthetic": 6.1,
    "aesthetic_v1": 7.5,
    "nsfw": 0.01,
    "watermark": 0.1,
    "language": "en",
    "text_words": 6,
    "image": [1.0, 0.1],
}


def sample(key: str, **changes: object) -> Row:
    return {"key": key, **GOOD, **changes}


# Each row but the first is good except for what its comment says.
ROWS = [
    sample("a good", neg_clip_loss=-0.01),
    sample("b short text", alt_text="lake", text_words=1),  # 4 characters
    sample("c small file", original_bytes=4_999),
    sample("d german", language="de", clip_similarity_b32=0.31),
    sample("e fits less", clip_similarity_b32=0.29, clip_similarity=0.20),
    sample("f fits badly", clip_similarity_b32=0.24, clip_similarity=0.10),
    sample("g plain", aesthetic=4.4, aesthetic_v1=6.0, clip_similarity=0.25, neg_clip_loss=-0.02),
    sample("h marked", watermark=0.6, nsfw=0.3, clip_similarity=0.22),
    sample("i narrow", original_width=900, original_height=280, clip_similarity=0.15),
    sample(
        "j elsewhere", image=[-0.2, 1.0], clip_similarity=0.29, aesthetic=5.0, neg_clip_loss=-0.03
    ),
]
ALL = "abcdefghij"

ANSWERS = {
    "laion-400m": "adghij",  # without b, c; below 0.30: e, f
    "laion-5b-en": "aeghij",  # and without d, but 0.28 lets e in
    "laion-aesthetics": "abcdefhij",
    "laion-aesthetics-v1": "abcdefhij",  # g is at 6.0; 0.6 < 0.8 and 0.3 < 0.5 keep h
    "sd1-aesthetics": "abcdef",  # above 5.0 drops j, too; h is marked, i 280 px high
    "sd2-base": "abcdefj",  # h is unsafe at 0.1
    "datacomp-basic": "acefghj",  # b has few words, d is German, i is 3.2 : 1
    "datacomp-clip": "abcd",  # 0-based third largest of ten is 0.30, with its ties
    "neg-clip-loss": "agj",  # the best three of ten
    "datacomp-clip-b32": "abcdeghij",
    "datacomp-laion-2b": "abceghij",
    "datacomp-image": "acefghi",
    "datacomp-1b": "ac",
}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_scored(tmp_path / "d", ROWS)


@pytest.fixture
def reference(tmp_path: Path) -> str:
    """Pictures of the kind that all samples but j are of."""
    np.save(tmp_path / "reference.npy", np.array([[2.0, 0.1], [1.0, 0.0]], np.float32))
    return str(tmp_path / "reference.npy")


def chosen(dataset: Dataset, preset: str, reference: str | None = None, **more: object) -> str:
    settings = SelectSettings(
        preset=preset, reference=reference, reference_clusters=2, keep_duplicates=True, **more
    )  # type: ignore[arg-type]
    select(dataset, settings)
    return "".join(key[0] for key in dataset.selection_keys(settings.name))


def test_every_preset_has_an_answer_here() -> None:
    assert ANSWERS.keys() == PRESETS.keys()


@pytest.mark.parametrize("preset", ANSWERS)
def test_a_preset_selects_what_was_counted_by_hand(
    dataset: Dataset, reference: str, preset: str
) -> None:
    assert chosen(dataset, preset, reference) == ANSWERS[preset]
    record = dataset.selection_record(preset)
    assert record["preset"]["name"] == preset
    assert record["preset"]["source"] == PRESETS[preset].source


def test_datacomps_clip_filter_is_its_own_code(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    scores = random.normal(0.2, 0.05, 1234).astype(np.float32)
    dataset = make_scored(
        tmp_path / "d",
        [{"key": f"{i:05d}", "clip_similarity": float(s)} for i, s in enumerate(scores)],
    )
    for fraction in (0.3, 0.07):
        threshold = -np.sort(-scores)[int(len(scores) * fraction)]
        expected = [f"{i:05d}" for i in np.flatnonzero(scores >= threshold)]
        settings = SelectSettings(
            preset="datacomp-clip",
            preset_values={"fraction": fraction},
            keep_duplicates=True,
            overwrite=True,
        )
        select(dataset, settings)
        assert dataset.selection_keys("datacomp-clip") == expected


def test_numbers_of_a_preset_can_be_changed(dataset: Dataset) -> None:
    assert chosen(dataset, "laion-aesthetics", preset_values={"minimum": 6}) == "abcdefhi"
    with pytest.raises(ConfigError, match="has no number 'min'; did you mean 'minimum'"):
        chosen(dataset, "laion-aesthetics", preset_values={"min": 6}, name="x")


def test_a_preset_and_rules_of_ones_own_both_apply(dataset: Dataset) -> None:
    settings = SelectSettings(preset="laion-400m", where="language = 'de'", name="german")
    assert select(dataset, settings).selected == 1
    assert dataset.selection_keys("german") == ["d german"]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_missing_column_is_one_sentence_with_the_scorer_to_add(
    tmp_path: Path, preset: str
) -> None:
    samples_alone = {"key", "alt_text", "width", "height", "original_width", "original_height"}
    dataset = make_scored(
        tmp_path / "d", [{n: v for n, v in ROWS[0].items() if n in samples_alone}]
    )
    need = PRESETS[preset].needs[0]
    with pytest.raises(ConfigError) as caught:
        chosen(dataset, preset)
    assert f"The preset {preset} needs {need.meaning}" in str(caught.value)
    assert need.columns[0] in str(caught.value)
    assert need.advice in str(caught.value)
    assert "\n" not in str(caught.value)
    assert dataset.selections() == []


def test_thresholds_of_another_clip_model_are_refused_unless_allowed(tmp_path: Path) -> None:
    rows = [sample("a", clip_similarity=0.31), sample("b", clip_similarity=0.26)]
    rows = [{n: v for n, v in row.items() if n != "clip_similarity_b32"} for row in rows]
    dataset = make_scored(tmp_path / "d", rows, clip=("ViT-L-14-quickgelu", "openai"))
    with pytest.raises(ConfigError, match=r"ViT-B-32/openai.*made with ViT-L-14-quickgelu/openai"):
        chosen(dataset, "laion-400m")
    assert chosen(dataset, "laion-400m", any_clip_model=True) == "a"


def test_quickgelu_in_a_models_name_makes_no_other_weights(tmp_path: Path) -> None:
    rows = [sample("a", clip_similarity=0.31), sample("b", clip_similarity=0.26)]
    dataset = make_scored(tmp_path / "d", rows, clip=("ViT-B-32-quickgelu", "openai"))
    assert chosen(dataset, "laion-400m") == "a"


def test_imported_columns_name_their_model(tmp_path: Path) -> None:
    rows = [
        {
            "key": "a",
            "imported_clip_l14_similarity_score": 0.3,
            "imported_clip_b32_similarity_score": 0.2,
        },
        {
            "key": "b",
            "imported_clip_l14_similarity_score": 0.1,
            "imported_clip_b32_similarity_score": 0.3,
        },
    ]
    dataset = make_scored(tmp_path / "d", rows)
    assert chosen(dataset, "datacomp-clip-b32") == "b"
    assert chosen(dataset, "datacomp-clip", preset_values={"fraction": 0.1}) == "a"


def test_any_expression_can_stand_for_a_quantity(dataset: Dataset) -> None:
    columns = {"aesthetic": "aesthetic - 1"}
    assert chosen(dataset, "laion-aesthetics", preset_columns=columns) == "abcdefhi"
    with pytest.raises(ConfigError, match="needs no 'beauty'"):
        chosen(dataset, "laion-aesthetics", preset_columns={"beauty": "1"}, name="x")


def test_a_stored_selection_can_stand_for_the_reference(dataset: Dataset, reference: str) -> None:
    near = SelectSettings(
        name="near", where="near_reference", reference=reference, reference_clusters=2
    )
    assert select(dataset, near).selected == 9
    assert dataset.selection_record("near")["reference"]["clusters_chosen"] == 1
    columns = {"near_reference": "in_selection('near')"}
    assert chosen(dataset, "datacomp-1b", preset_columns=columns) == ANSWERS["datacomp-1b"]


def test_a_reference_of_another_width_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.ones((2, 3), np.float32))
    with pytest.raises(ConfigError, match=r"have 3 numbers and those of .* 2"):
        chosen(dataset, "datacomp-image", str(tmp_path / "wide.npy"))
    with pytest.raises(ConfigError, match="cannot be read"):
        chosen(dataset, "datacomp-image", str(tmp_path / "missing.npy"))


def test_a_dataset_can_be_the_reference(dataset: Dataset, tmp_path: Path) -> None:
    like = make_scored(tmp_path / "like", [sample("r", image=[-0.1, 0.9])])
    settings = SelectSettings(
        name="near", where="near_reference", reference=str(like.directory), reference_clusters=2
    )
    select(dataset, settings)
    assert dataset.selection_keys("near") == ["j elsewhere"]
    assert not select(dataset, settings).fresh


def test_an_unknown_preset_and_numbers_without_one_are_refused(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="did you mean 'laion-400m'"):
        chosen(dataset, "laion400m")
    with pytest.raises(ConfigError, match="--preset-values needs a --preset"):
        select(dataset, SelectSettings(preset_values={"minimum": 5}))


def test_the_list_names_rule_numbers_and_source_of_every_preset() -> None:
    text = describe_presets()
    for preset in PRESETS.values():
        assert preset.name in text
        assert preset.source in text
    assert "datacomp_top_fraction(clip_similarity, 0.3)" in text
