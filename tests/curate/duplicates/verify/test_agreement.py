import numpy as np
import pytest
from PIL import Image, ImageDraw

from curate.duplicates.verify.agreement import CopyLimits, compare
from curate.duplicates.verify.verifier import are_copies
from curate.pictures.perceptual_hashes import thumbnails
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


def striped(thing: tuple[int, int], colour: tuple[int, int, int] = (30, 60, 220)) -> np.ndarray:
    """One disc, its upper left corner at `thing`, on a ground of stripes."""
    image = Image.new("RGB", (256, 256), (22, 22, 22))
    pen = ImageDraw.Draw(image)
    for row in range(0, 256, 42):
        pen.rectangle((0, row, 256, row + 20), fill=(60, 60, 60))
    left, top = thing
    pen.ellipse((left, top, left + 60, top + 60), fill=colour)
    return np.asarray(image)


def labelled(picture: np.ndarray) -> np.ndarray:
    """A translucent label with a word in the upper right corner."""
    image = Image.fromarray(picture).convert("RGBA")
    layer = Image.new("RGBA", image.size)
    pen = ImageDraw.Draw(layer)
    pen.rectangle((150, 0, 256, 30), fill=(30, 30, 30, 120))
    pen.text((156, 2), "(c) photo", fill=(255, 255, 255, 200), font_size=22)
    return np.asarray(Image.alpha_composite(image, layer).convert("RGB"))


def test_another_thing_on_one_striped_ground_is_no_copy() -> None:
    scene = striped((40, 150))
    assert copy(scene, scene)
    assert copy(scene, scene[:, ::-1].copy())
    assert not copy(scene, striped((160, 30)), alike=0.89)
    assert not copy(scene, striped((160, 150), (250, 130, 30)), alike=0.89)


def test_a_label_in_a_corner_of_a_plain_scene_is_an_edit() -> None:
    scene = striped((40, 150))
    assert copy(scene, labelled(scene), alike=0.92)
    assert copy(labelled(scene), scene, alike=0.92)


def test_a_label_differs_in_the_cells_that_it_touches_and_in_no_others() -> None:
    scene = np.full((256, 256, 3), (196, 164, 120), np.uint8)
    scene[150:210, 30:100] = (40, 60, 160)
    found = compare(thumbnail(scene), thumbnail(labelled(scene)))
    touched = 4  # of the upper row; each weighs a quarter at the rim, and a quarter as one-sided
    assert 0 < found.disagreement[0] * found.agreeing[0] <= touched / 16


def test_a_thing_as_light_as_its_ground_is_recognised_in_the_mirror_by_its_colour() -> None:
    tan = np.full((128, 128, 3), (196, 164, 120), np.uint8)
    scene, other = tan.copy(), tan.copy()
    scene[70:110, 64:110] = (80, 190, 200)  # as light as the tan around it
    other[70:110, 64:110] = (230, 140, 150)
    assert copy(scene, scene[:, ::-1].copy(), alike=0.87)
    assert not copy(scene, other, alike=0.87)


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
