import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import convolve

from curate.scoring.scorers.image_basics import ImageBasics, colourfulness, laplacian_variance
from curate.scoring.scorers.text_basics import TextBasics
from tests.curate.tiny import drawn


def image_columns(pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
    canvas = np.stack([np.asarray(Image.fromarray(p).resize((128, 128), 4)) for p in pictures])
    columns = {
        "canvas": canvas,
        "grey": [np.asarray(Image.fromarray(p).convert("L")) for p in pictures],
        "size": np.array([[p.shape[1], p.shape[0]] for p in pictures]),
    }
    return ImageBasics().score(columns)


def text_columns(*texts: str | None) -> dict[str, list]:
    return {
        name: column.to_pylist()
        for name, column in TextBasics().score({"alt_text": list(texts)}).items()
    }


def test_image_basics_of_known_pictures() -> None:
    black = np.zeros((50, 100, 3), np.uint8)
    halves = np.zeros((128, 128, 3), np.uint8)
    halves[:, 64:] = 255
    scores = image_columns([black, halves])
    assert scores["aspect_ratio"].tolist() == [2, 1]
    assert scores["brightness"] == pytest.approx([0, 0.5])
    assert scores["contrast"] == pytest.approx([0, 0.5])
    assert scores["entropy"] == pytest.approx([0, 1])
    assert scores["colourfulness"] == pytest.approx([0, 0], abs=1e-4)


def test_colourfulness_is_hasler_and_suesstrunks_formula() -> None:
    picture = drawn(3).astype(np.float64)
    rg = picture[..., 0] - picture[..., 1]
    yb = (picture[..., 0] + picture[..., 1]) / 2 - picture[..., 2]
    expected = np.sqrt(rg.var() + yb.var()) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    assert colourfulness(drawn(3)[None])[0] == pytest.approx(expected, rel=1e-4)


def test_blur_is_the_variance_of_the_laplacian_and_falls_when_blurred() -> None:
    from PIL import ImageFilter

    sharp = Image.fromarray(drawn(4)).convert("L")
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    expected = convolve(np.asarray(sharp, np.float64), kernel, mode="mirror").var()
    blurred = np.asarray(sharp.filter(ImageFilter.GaussianBlur(2)))
    scores = laplacian_variance([np.asarray(sharp), blurred])
    assert scores[0] == pytest.approx(expected, rel=1e-4)
    assert scores[1] < scores[0] / 2


def test_entropy_is_shannons_over_the_histogram() -> None:
    picture = drawn(6, 128, 128)
    grey = np.rint(picture @ np.array([0.299, 0.587, 0.114], np.float32)).astype(int)
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    expected = -(share[share > 0] * np.log2(share[share > 0])).sum()
    assert image_columns([picture])["entropy"][0] == pytest.approx(expected, rel=1e-4)


def test_text_lengths_and_shares() -> None:
    scores = text_columns("A red, red fox!", "x9", "", None)
    assert scores["text_chars"] == [15, 2, 0, 0]
    assert scores["text_words"] == [4, 1, 0, 0]
    assert scores["text_symbol_share"][0] == pytest.approx(2 / 15)
    assert scores["text_digit_share"][:3] == [0, 0.5, None]
    assert scores["text_repetition"] == [0, 0, None, None]
    assert text_columns("dog dog dog cat")["text_repetition"] == [0.5]


def test_letters_of_any_script_are_no_symbols() -> None:
    scores = text_columns("Füße im Gras", "красный дом", "赤い家", "नमस्ते")
    assert scores["text_symbol_share"] == [0, 0, 0, 0]
    assert scores["text_chars"] == [12, 11, 3, 6]


@pytest.mark.parametrize(
    "text",
    [
        "IMG_2041.JPG",
        "photo.jpeg",
        "my holiday picture.png",
        "DSC01234",
        "dsc_0042",
        "P1010023",
        "screenshot-2021-03-04",
        "20190412_173022",
        "550e8400-e29b-41d4-a716-446655440000",
        "d41d8cd98f00b204e9800998ecf8427e",
        "summer-dress_03",
        "image (3)",
        "chicken-soup-1024x768",
    ],
)
def test_file_names_are_recognised(text: str) -> None:
    assert text_columns(text)["text_is_filename"] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "A photo of a dog",
        "Two cats",
        "Mother-in-law",
        "Route 66",
        "sunset over the sea in 2019",
        "Boeing 747",
        "T-shirt",
        "a red square",
        "photo 51 of Rosalind Franklin",
    ],
)
def test_captions_are_neither_file_names_nor_boilerplate(text: str) -> None:
    scores = text_columns(text)
    assert scores["text_is_filename"] == [False]
    assert scores["text_is_boilerplate"] == [False]


@pytest.mark.parametrize(
    "text",
    [
        "Image",
        "image 12",
        "Photo.",
        "click to enlarge",
        "Home page banner",
        "SALE 30% OFF!",
        "View larger image",
        "© 2017 All rights reserved",
        "placeholder",
        "Profile picture",
        "No image available",
    ],
)
def test_boilerplate_is_recognised(text: str) -> None:
    assert text_columns(text)["text_is_boilerplate"] == [True]


def test_a_caption_with_a_selling_phrase_still_says_something() -> None:
    scores = text_columns("Stock photo: red apple on a table", "GREEN PEAR - buy now", "a pear")
    assert scores["text_is_boilerplate"] == [False, False, False]
    assert scores["text_has_boilerplate"] == [True, True, False]


def test_urls_and_html_are_recognised() -> None:
    scores = text_columns("see www.shop.com/x", "a <b>bold</b> claim", "cats &amp; dogs", "3 < 5")
    assert scores["text_has_url"] == [True, False, False, False]
    assert scores["text_has_html"] == [False, True, True, False]
