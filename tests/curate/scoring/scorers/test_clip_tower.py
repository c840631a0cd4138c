"""The towers compute less than open_clip's own road and must give the same embeddings."""

import numpy as np
import pytest
import torch

from curate.scoring.scorers import clip_tower
from curate.scoring.scorers.clip_picture import PictureTower
from curate.scoring.scorers.clip_text import TextTower, tokens_of, truncated_tokens
from curate.scoring.scorers.clip_tower import Tower, pack_texts

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


MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def some_pictures(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8)


def floats(pictures: torch.Tensor) -> torch.Tensor:
    """As open_clip wants them: (B, 3, S, S), normalised."""
    return (pictures.permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(
        STD
    )[:, None, None]


def picture_tower(model, dtype: torch.dtype = torch.float32) -> PictureTower:
    return PictureTower(model, dtype, CPU, MEAN, STD)


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
@pytest.mark.parametrize("fused", [True, False])
def test_embeddings_are_those_of_open_clip(name: str, fused: bool, monkeypatch) -> None:
    if not fused:
        monkeypatch.setattr(clip_tower, "has_fused_linear", lambda dtype: False)
    model = a_clip(**MODELS[name])
    pictures, tokens = some_pictures(5), some_tokens([20, 3, 9, 9, 2, 14, 13, 20])
    with torch.inference_mode():
        image, text = picture_tower(model), TextTower(model, torch.float32, CPU)
        assert image.plain
        assert text._tower is not None
        assert torch.allclose(image(pictures), model.encode_image(floats(pictures)), atol=1e-4)
        assert torch.allclose(text(tokens), model.encode_text(tokens), atol=1e-5)


def test_what_stands_behind_the_end_of_a_text_changes_nothing() -> None:
    model = a_clip()
    tokens = some_tokens([5, 12])
    behind = tokens.clone()
    behind[0, 5:] = 7
    with torch.inference_mode():
        tower = TextTower(model, torch.float32, CPU)
        assert torch.equal(tower(tokens), tower(behind))


@pytest.mark.parametrize(
    ("vision", "text"),
    [({"pool_type": "avg"}, {}), ({"attentional_pool": True}, {}), ({}, {"no_causal_mask": True})],
)
def test_towers_that_read_elsewhere_take_open_clips_road(vision: dict, text: dict) -> None:
    model = a_clip(vision, text)
    pictures, tokens = some_pictures(2), some_tokens([4, 20])
    with torch.inference_mode():
        image, words = picture_tower(model), TextTower(model, torch.float32, CPU)
        assert image.plain != bool(vision)
        assert (words._tower is None) == bool(text)
        assert torch.allclose(image(pictures), model.encode_image(floats(pictures)), atol=1e-4)
        assert torch.allclose(words(tokens), model.encode_text(tokens), atol=1e-5)


def test_low_precision_is_closer_to_float32_than_open_clips_road() -> None:
    from open_clip.model import convert_weights_to_lp

    full, half = a_clip(), a_clip()
    convert_weights_to_lp(half, torch.bfloat16)
    pictures = some_pictures(32)
    with torch.inference_mode():
        exact = full.encode_image(floats(pictures))
        theirs = half.encode_image(floats(pictures).bfloat16()).float()
        ours = picture_tower(half, torch.bfloat16)(pictures).float()
    assert (ours - exact).norm() < (theirs - exact).norm()


def test_texts_are_grouped_by_nearly_equal_length() -> None:
    packed = pack_texts([2, 3, 8, 9, 9, 20], CPU)
    assert [(first, count, longest) for first, count, longest, _, _ in packed.groups] == [
        (0, 3, 8),
        (13, 2, 9),
        (31, 1, 20),
    ]
    _, _, _, index, valid = packed.groups[0]
    assert index is not None
    assert valid is not None
    assert index[valid].tolist() == list(range(13))
    assert packed.groups[1][3] is None  # equal lengths are used as they lie
    assert packed.read.tolist() == (np.cumsum([2, 3, 8, 9, 9, 20]) - 1).tolist()


def test_the_tower_holds_no_second_copy_of_the_weights() -> None:
    model = a_clip()
    blocks = list(model.visual.transformer.resblocks)
    tower = Tower(blocks, torch.float32, CPU)
    ours = tower._blocks[0].up._weight
    assert ours.data_ptr() == blocks[0].mlp.c_fc.weight.data_ptr()


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
