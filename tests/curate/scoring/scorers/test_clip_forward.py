"""Less is computed than on open_clip's own road, and the embeddings must be the same."""

import pytest
import torch

from curate.scoring.scorers.clip_forward import (
    picture_features,
    reads_class_token,
    reads_end_of_text,
    text_features,
)
from curate.scoring.scorers.clip_tokens import tokens_of, truncated_tokens

VISION = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 20, "vocab_size": 100, "width": 32, "heads": 2, "layers": 3}
CPU = torch.device("cpu")


def a_clip(vision: dict | None = None, text: dict | None = None, **options: object):
    import open_clip

    torch.manual_seed(0)
    model = open_clip.CLIP(16, VISION | (vision or {}), TEXT | (text or {}), **options)
    for name, weight in model.named_parameters():  # as made, biases and scales are 0 and 1
        if name.endswith(("bias", "ln_1.weight", "gamma")):
            torch.nn.init.normal_(weight)
    return model.eval().requires_grad_(False)


def some_pictures(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32)


def some_tokens(lengths: list[int]) -> torch.Tensor:
    """Padded rows whose end of text, the highest token, stands last."""
    tokens = torch.zeros(len(lengths), 20, dtype=torch.long)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(1, 99, (length,))
        tokens[row, length - 1] = 99
    return tokens


MODELS = {
    "plain": {},
    "quick gelu": {"quick_gelu": True},
    "layer scale": {"vision": {"ls_init_value": 0.1}, "text": {"ls_init_value": 0.1}},
    "wide head": {"vision": {"head_width": 32}},
}


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_are_those_of_open_clip(name: str) -> None:
    model = a_clip(**MODELS[name])
    pictures, tokens = some_pictures(5), some_tokens([20, 3, 9, 9, 2, 14, 13, 20])
    assert reads_class_token(model.visual)
    assert reads_end_of_text(model)
    with torch.inference_mode():
        assert torch.allclose(
            picture_features(model, pictures), model.encode_image(pictures), atol=1e-5
        )
        assert torch.allclose(text_features(model, tokens), model.encode_text(tokens), atol=1e-5)


def test_what_stands_behind_the_end_of_a_text_changes_nothing() -> None:
    model = a_clip()
    tokens = some_tokens([5, 12])
    behind = tokens.clone()
    behind[0, 5:] = 7
    with torch.inference_mode():
        assert torch.equal(text_features(model, tokens), text_features(model, behind))


@pytest.mark.parametrize(
    ("vision", "text"),
    [({"pool_type": "avg"}, {}), ({"attentional_pool": True}, {}), ({}, {"no_causal_mask": True})],
)
def test_towers_that_read_elsewhere_take_open_clips_road(vision: dict, text: dict) -> None:
    model = a_clip(vision, text)
    pictures, tokens = some_pictures(2), some_tokens([4, 20])
    assert reads_class_token(model.visual) != bool(vision)
    assert reads_end_of_text(model) != bool(text)
    with torch.inference_mode():
        image, words = model.encode_image(pictures), model.encode_text(tokens)
        assert torch.allclose(picture_features(model, pictures), image, atol=1e-5)
        assert torch.allclose(text_features(model, tokens), words, atol=1e-5)


def test_low_precision_is_closer_to_float32_than_open_clips_road() -> None:
    import open_clip

    full = a_clip()
    half = open_clip.CLIP(16, VISION, TEXT, cast_dtype=torch.bfloat16).eval().requires_grad_(False)
    half.load_state_dict(full.state_dict())
    open_clip.convert_weights_to_lp(half, torch.bfloat16)
    pictures = some_pictures(32)
    with torch.inference_mode():
        exact = full.encode_image(pictures)
        theirs = half.encode_image(pictures.bfloat16()).float()
        ours = picture_features(half, pictures.bfloat16()).float()
    assert (ours - exact).norm() < (theirs - exact).norm()


def test_reading_a_text_once_gives_its_tokens_and_what_was_cut() -> None:
    import open_clip

    tokenize = open_clip.SimpleTokenizer(context_length=12)
    texts = [
        "a fox",
        "word " * 30,
        "café &amp; Ελ",
        "one two three four five six seven eight nine ten",
    ]
    tokens, left_out = tokens_of(tokenize, texts)
    assert torch.equal(tokens, tokenize(texts))
    assert left_out == [truncated_tokens(tokenize, text) for text in texts] == [0, 20, 0, 0]
