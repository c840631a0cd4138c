"""The world's own text encoder: the same words and weights for a seed, saved and found again."""

import pickle
from pathlib import Path

import pytest
import torch

from curate.base.errors import ConfigError
from train.model_settings import ModelConfig, TextConfig
from train.text import build_text
from train.text.build import build_tokenizer

MODEL = "encoders.0.model"
CAPTIONS = ["A red ring, at top-left.", "a photo of two dogs", "dogs"]
OPTIONS = {"width": 32, "depth": 1, "heads": 4, "feed_forward": 48, "stop_words": ["a", "the"]}


def words(**changes: object) -> ModelConfig:
    values: dict[str, object] = {"trainable": True, "masked": True, "tokens": 6, "options": OPTIONS}
    return ModelConfig(text=(TextConfig(kind="words", **{**values, **changes}),))  # type: ignore[arg-type]


def test_words_are_whole_cut_with_their_end_and_padded() -> None:
    encoder = build_text(words(), CAPTIONS)
    texts = ["the Red ring", "", "dogs dogs dogs dogs dogs dogs", "a blue ring"]
    tokens = encoder.tokenize(texts)
    assert tokens["text_encoder.mask"].sum(1).tolist() == [3, 1, 6, 3]
    assert encoder.tokenizer.pieces(texts[0]) == ["red", "ring", "</s>"]
    assert encoder.tokenizer.pieces(texts[2]) == ["dogs"] * 5 + ["</s>"]
    assert encoder.tokenizer.pieces(texts[3]) == ["<unk>", "ring", "</s>"]
    assert encoder.tokenizer.cut(texts).tolist() == [False, False, True, False]


def test_padding_changes_no_word_where_it_is_masked() -> None:
    short, long = build_text(words(tokens=4), CAPTIONS), build_text(words(tokens=9), CAPTIONS)
    with torch.no_grad():
        near, far = (own(own.tokenize(["red ring"])) for own in (short, long))
    torch.testing.assert_close(near.sequence[:, :3], far.sequence[:, :3])
    assert far.mask.tolist() == [[1] * 3 + [0] * 6]


def test_weights_hang_on_the_seed_and_their_name_and_not_on_the_vocabulary() -> None:
    few = build_text(words(), CAPTIONS, seed=7)
    many = build_text(words(), [*CAPTIONS, "cat"], seed=7)
    own, others = few.state_dict(), many.state_dict()
    assert own.keys() == others.keys()
    for name, weight in own.items():
        embedding = "shared" in name or "embed_tokens" in name
        assert embedding or torch.equal(weight, others[name])
    other = build_text(words(), CAPTIONS, seed=8).state_dict()
    assert not torch.equal(other[f"{MODEL}.shared.weight"], own[f"{MODEL}.shared.weight"])
    # These numbers were drawn by the first version of this model and may not change.
    wo = own[f"{MODEL}.encoder.block.0.layer.1.DenseReluDense.wo.weight"]
    bias = own[f"{MODEL}.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    assert bias[:3].tolist() == [[-3, -3, -6, 0], [0, -6, -3, 0], [-3, -6, 0, 0]]
    drawn = torch.tensor([0.1271367371, 0.1385139227, 0.2288799584])
    torch.testing.assert_close(wo[0, :3], drawn)


def test_saved_parts_are_found_in_a_run_or_its_pipeline(tmp_path: Path) -> None:
    first = build_text(words(), CAPTIONS, seed=3)
    tokens = first.tokenize(["a red ring", "dogs"])
    with torch.no_grad():
        asked = first(tokens).sequence
    tokenizer, model = first.parts()["tokenizer"], first.parts()["text_encoder"]
    run = tmp_path / "run"
    tokenizer.save_pretrained(run / "tokenizer")
    unfinished = build_text(words(), (), run, seed=3)
    with torch.no_grad():
        assert torch.equal(unfinished(unfinished.tokenize(["a red ring", "dogs"])).sequence, asked)
    tokenizer.save_pretrained(run / "pipeline" / "tokenizer")
    model.save_pretrained(run / "pipeline" / "text_encoder")
    for source in (run, run / "pipeline"):
        for trainable in (True, False):
            found = build_text(words(trainable=trainable), (), source, seed=99)
            assert not found.encoders[0].training
            assert found.trainable == trainable
            assert all(p.requires_grad == trainable for p in found.parameters())
            with torch.no_grad():
                again = found(found.tokenize(["a red ring", "dogs"]))
            assert torch.equal(again.sequence, asked)
    assert build_text(words().model_copy(update={"source": str(run)})).width == 32


def test_an_encoder_never_enters_training_mode_and_gradients_reach_trained_ones_alone() -> None:
    encoder = build_text(words(), CAPTIONS)
    assert not any(part.training for part in encoder.train().encoders[0].modules())
    encoder(encoder.tokenize(["red"])).sequence.sum().backward()
    assert encoder.encoders[0].model.shared.weight.grad is not None
    frozen = build_text(words(trainable=False), CAPTIONS)
    assert not frozen(frozen.tokenize(["red"])).sequence.requires_grad


def test_texts_seen_before_come_back_the_same_and_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (side,) = build_tokenizer(words(), CAPTIONS).own
    texts = ["red ring", "dogs", "red ring", ""]
    first = side(texts)
    calls = []
    encode = side.encode
    monkeypatch.setattr(side, "encode", lambda own: calls.append(list(own)) or encode(own))
    again = side([*texts[::-1], "photo"])
    assert calls == [["photo"]]
    assert torch.equal(again["text_encoder.ids"][:4], first["text_encoder.ids"].flip(0))
    monkeypatch.setattr("train.text.tokens._REMEMBERED", 2 * 6 * 5)
    assert side.remembered == 5
    side(["two", "of"])
    assert calls[1:] == [["two", "of"]]
    assert torch.equal(side(texts)["text_encoder.ids"], first["text_encoder.ids"])
    assert calls[2:] == [["red ring", "dogs", ""]]


def test_the_tokenizers_side_travels_without_weights_or_memory() -> None:
    encoder = build_text(words(), CAPTIONS)
    asked = encoder.tokenize(["a red ring"])
    sent = pickle.dumps(encoder.tokenizer_side())
    assert b"torch" not in sent
    assert b"a red ring" not in sent
    found = pickle.loads(sent)(["a red ring"])
    assert all(torch.equal(found[name], asked[name]) for name in asked)


def test_identity_hangs_on_weights_words_and_window_and_not_on_what_was_read() -> None:
    first = build_text(words(), CAPTIONS).identity()
    read = build_text(words(), CAPTIONS)
    read.tokenize(["a red ring"])
    assert read.identity() == first
    with torch.no_grad():
        read.encoders[0].model.shared.weight[0, 0] += 1
    changed = [
        read.identity(),
        build_text(words(), CAPTIONS, seed=1).identity(),
        build_text(words(), [*CAPTIONS, "cat"]).identity(),
        build_text(words(tokens=7), CAPTIONS).identity(),
    ]
    assert all(other != first for other in changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"widht": 3}}, "has no setting 'widht'.*width"),
        ({"options": {"width": 30, "heads": 4}}, "heads must divide width"),
        ({"pooled": True}, "pooled is for clip"),
        ({"windows": 2}, "windows is for clip"),
        ({"sequence": False}, "No text encoder gives a sequence"),
        ({"kind": "t5"}, "the model needs a source"),
    ],
)
def test_what_does_not_fit_is_one_sentence(changes: dict[str, object], message: str) -> None:
    config = words()
    text = TextConfig(**{**config.text[0].model_dump(), **changes})
    with pytest.raises(ConfigError, match=message):
        build_text(ModelConfig(text=(text,)), CAPTIONS)


def test_no_captions_and_no_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a vocabulary or captions"):
        build_text(words())
