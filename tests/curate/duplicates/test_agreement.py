import numpy as np
import pytest
from PIL import Image, ImageDraw

from curate.duplicates.agreement import CopyLimits, compare
from curate.duplicates.copies import are_copies
from curate.duplicates.fingerprints import thumbnails
from tests.curate.tiny import drawn


def thumbnail(picture: np.ndarray) -> np.ndarray:
    canvas = Image.fromarray(picture).resize((128, 128), Image.Resampling.BOX)
    return thumbnails(np.asarray(canvas)[None])


def copy(a: np.ndarray, b: np.ndarray, alike: float = 0.8) -> bool:
    cosine = np.array([alike], np.float32)
    return bool(are_copies(thumbnail(a), thumbnail(b), cosine, CopyLimits())[0])


def chart(heights: list[int], note: str = "", at: int = 60) -> np.ndarray:
    """A bar chart: pictures of one frame that differ in their bars, or in what is written."""
    image = Image.new("RGB", (256, 256), "white")
    pen = ImageDraw.Draw(image)
    pen.line((30, 20, 30, 226, 240, 226), fill="black", width=3)
    for slot, height in enumerate(heights):
        pen.rectangle((45 + 40 * slot, 226 - height, 70 + 40 * slot, 226), fill=(40, 80, 160))
    pen.text((at, 24), note, fill="black", font_size=36)
    return np.asarray(image)


def test_crops_light_labels_and_mirror_images_are_copies() -> None:
    picture = drawn(5, 256, 256)
    labelled = picture.copy()
    labelled[:24, :110] = 30
    assert copy(picture, picture[0:218, 38:256].copy())
    assert copy(picture, (picture * 0.7 + 20).astype(np.uint8))
    assert copy(picture, labelled)
    assert copy(picture, picture[:, ::-1].copy())
    assert copy(labelled, picture[:, ::-1][10:246, 10:246].copy())


def test_a_grey_copy_is_a_copy_and_other_colours_are_not() -> None:
    picture = drawn(3)
    assert copy(picture, np.asarray(Image.fromarray(picture).convert("L").convert("RGB")))
    assert not copy(picture, picture[..., [1, 2, 0]].copy())


def test_different_pictures_are_no_copies() -> None:
    first = np.concatenate([thumbnail(drawn(seed)) for seed in range(30)])
    alike = np.ones(len(first), np.float32)
    assert not are_copies(first, np.roll(first, 1, axis=0), alike, CopyLimits()).any()


def test_an_exchanged_object_in_the_middle_is_no_edit() -> None:
    scene = drawn(4, 128, 128)
    other = scene.copy()
    other[36:92, 36:92] = 255 - other[36:92, 36:92]
    assert not copy(scene, other)


def test_charts_of_one_frame_are_no_copies_and_a_relabelled_chart_is_one() -> None:
    bars = [60, 150, 90, 120, 40]
    assert not copy(chart(bars), chart([150, 60, 120, 50, 130]), alike=0.97)
    assert copy(chart(bars), chart(bars))


def test_another_thing_on_one_ground_is_no_copy() -> None:
    def scene(left: int, colour: tuple[int, int, int]) -> np.ndarray:
        image = Image.new("RGB", (256, 256), "white")
        pen = ImageDraw.Draw(image)
        for row in range(0, 256, 64):
            pen.rectangle((0, row, 256, row + 31), fill=(200, 200, 200))
        pen.ellipse((left, 150, left + 50, 200), fill=colour)
        return np.asarray(image)

    assert copy(scene(40, (30, 60, 220)), scene(40, (30, 60, 220)))
    assert not copy(scene(40, (30, 60, 220)), scene(160, (250, 130, 30)), alike=0.85)


def test_what_only_one_of_two_plain_pictures_holds_counts_less_than_what_each_does() -> None:
    bars = [60, 150, 90, 120, 40]
    added = compare(thumbnail(chart(bars)), thumbnail(chart(bars, "2026"))).disagreement[0]
    each = compare(thumbnail(chart(bars, "1989", at=60)), thumbnail(chart(bars, "2026", at=150)))
    assert 0 < 2 * added < each.disagreement[0]


def test_blocks_do_not_change_the_answer() -> None:
    first = np.concatenate([thumbnail(drawn(seed)) for seed in range(70)])
    whole = compare(first, np.roll(first, 1, axis=0))
    one = compare(first[66:67], np.roll(first, 1, axis=0)[66:67])
    assert whole.misfit[66] == pytest.approx(one.misfit[0], abs=1e-4)


def test_a_flat_picture_is_no_copy_of_one_with_something_in_it() -> None:
    flat = np.full((64, 64, 3), 200, np.uint8)
    assert not copy(flat, drawn(1), alike=0.99)


def test_a_faint_picture_without_detail_is_a_copy_of_itself_alone() -> None:
    faint = np.full((128, 128, 3), 20, np.uint8)
    faint[50:70, 60:64] += 60
    other = np.full((128, 128, 3), 20, np.uint8)
    other[20:24, 10:40] += 60
    assert copy(faint, faint, alike=1.0)
    assert not copy(faint, other, alike=0.8)


def test_no_pictures_are_no_copies() -> None:
    none = thumbnail(drawn(1))[:0]
    assert not len(are_copies(none, none, np.empty(0, np.float32), CopyLimits()))
