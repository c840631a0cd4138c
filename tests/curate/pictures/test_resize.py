"""From a stranger's file to the stored picture: upright, sRGB, whole, or a reason why not."""

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from curate.base.reasons import Failure, FailureError, Reason
from curate.pictures.resize import Resizer, StoredImage
from curate.pictures.settings import PictureSettings
from curate.pictures.shrink import shrink
from tests.curate.download.hostile_server import picture


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(stored: StoredImage) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stored.content)))


def resizer(**settings: object) -> Resizer:
    return Resizer(PictureSettings.model_validate(settings))


def reason_of(content: bytes, **settings: object) -> Reason:
    with pytest.raises(FailureError) as caught:
        resizer(**settings).store(content)
    return caught.value.failure.reason


def quarters() -> Image.Image:
    """Red, green / blue, white quarters, wider than high."""
    image = Image.new("RGB", (120, 80), (255, 255, 255))
    image.paste((220, 0, 0), (0, 0, 60, 40))
    image.paste((0, 160, 0), (60, 0, 120, 40))
    image.paste((0, 0, 220), (0, 40, 60, 80))
    return image


def test_a_refused_file_keeps_its_hash_size_and_format():
    content = b"\x89PNG\r\n\x1a\n and nothing else"
    refused = resizer(image_size=48).outcome(content)
    assert isinstance(refused, Failure)
    assert refused.reason is Reason.BROKEN_IMAGE
    assert refused.original_format == "png"
    assert refused.original_bytes == len(content)
    assert refused.sha256 == hashlib.sha256(content).hexdigest()
    html = resizer(image_size=48).outcome(b"<html>")
    assert isinstance(html, Failure)
    assert (html.reason, html.detail) == (Reason.NOT_AN_IMAGE, "HTML")


@pytest.mark.parametrize("name", ["md5", "sha256", "sha512"])
def test_a_file_is_stored_only_if_it_is_the_one_that_the_list_means(name):
    content = picture()
    right = hashlib.new(name, content).hexdigest()
    assert isinstance(resizer(image_size=48).outcome(content, {name: right.upper()}), StoredImage)
    for wrong in ("0" * len(right), right[:-1], "not a hash"):
        refused = resizer(image_size=48).outcome(content, {name: wrong})
        assert isinstance(refused, Failure)
        assert refused.reason is Reason.HASH_MISMATCH
    assert isinstance(resizer(image_size=48).outcome(content, {name: None}), StoredImage)


@pytest.mark.parametrize(
    ("mode", "size"),
    [
        ("keep_ratio_largest", (60, 40)),
        ("keep_ratio", (90, 60)),
        ("center_crop", (60, 60)),
        ("no", (120, 80)),
    ],
)
def test_resize_modes(mode, size):
    stored = resizer(image_size=60, resize_mode=mode).store(encoded(quarters(), "PNG"))
    assert (stored.width, stored.height) == size
    assert Image.open(io.BytesIO(stored.content)).size == size
    assert (stored.original_width, stored.original_height) == (120, 80)


def test_small_pictures_are_enlarged_only_when_asked():
    content = encoded(quarters(), "PNG")
    assert resizer(image_size=240).store(content).width == 120
    assert resizer(image_size=240, upscale=True).store(content).width == 240
    assert resizer(image_size=240, resize_mode="center_crop").store(content).width == 80


def test_the_centre_square_shows_the_middle():
    stored = resizer(image_size=40, resize_mode="center_crop", encode_format="png").store(
        encoded(quarters(), "PNG")
    )
    left, right = pixels(stored)[10, :18], pixels(stored)[10, 22:]
    assert (left == (220, 0, 0)).all()
    assert (right == (0, 160, 0)).all()


def test_the_original_is_recorded_as_it_came():
    content = picture(200, 100)
    stored = resizer(image_size=50).store(content)
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert stored.original_bytes == len(content)
    assert stored.original_format == "jpeg"
    assert stored.format == "jpg"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_each_format_keeps_its_picture(kind):
    stored = resizer(image_size=120, encode_format="png").store(encoded(quarters(), kind))
    assert stored.original_format == kind.lower()
    difference = pixels(stored)[::8, 4::8].astype(int) - np.asarray(quarters())[::8, 4::8]
    assert abs(difference).mean() < 8


@pytest.mark.parametrize("encode_format", ["jpg", "png", "webp"])
def test_each_stored_format_is_what_it_says(encode_format):
    stored = resizer(image_size=60, encode_format=encode_format).store(picture())
    kind = Image.open(io.BytesIO(stored.content)).format
    assert kind == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[encode_format]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_is_applied_and_the_tag_is_gone(orientation, kind):
    backwards = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = quarters()
    turned = upright if backwards is None else upright.transpose(backwards)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = resizer(image_size=60, encode_format="png").store(encoded(turned, kind, exif=exif))
    assert (stored.original_width, stored.original_height) == (120, 80)
    assert (stored.width, stored.height) == (60, 40)
    corners = pixels(stored)[[4, 4, 36, 36], [4, 56, 4, 56]].astype(int)
    expected = np.array([(220, 0, 0), (0, 160, 0), (0, 0, 220), (255, 255, 255)])
    assert abs(corners - expected).max() < 40
    assert not Image.open(io.BytesIO(stored.content)).getexif()


@pytest.mark.parametrize("exif", [b"", b"II", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"\xff" * 40])
def test_a_broken_exif_block_leaves_the_picture_as_it_lies(exif):
    assert Resizer().store(encoded(quarters(), "JPEG", exif=exif)).width == 120


def test_metadata_does_not_reach_the_stored_picture():
    exif = Image.Exif()
    exif[0x010F] = "a camera with a serial number"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = encoded(quarters(), "JPEG", exif=exif, comment=b"by me", icc_profile=srgb)
    for encode_format in ("jpg", "png", "webp"):
        stored = resizer(encode_format=encode_format).store(content)
        image = Image.open(io.BytesIO(stored.content))
        assert not {"exif", "comment", "icc_profile"} & set(image.info)


def test_sixteen_bit_grey_is_scaled_not_clipped_to_white():
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    stored = resizer(encode_format="png").store(encoded(Image.fromarray(ramp), "PNG"))
    assert abs(pixels(stored)[..., 0].astype(float) - ramp / 257).max() <= 1


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 8, 4))
    image.paste((0, 0, 0, 128), (4, 4, 8, 8))
    grid = pixels(resizer(encode_format="png").store(encoded(image, "PNG")))
    assert grid[1, 1].tolist() == [200, 0, 0]
    assert grid[6, 1].tolist() == [255, 255, 255]
    assert abs(grid[6, 6].astype(int) - 127).max() <= 1


def test_a_transparent_palette_is_laid_on_white():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.paste(0, (0, 0, 8, 4))
    grid = pixels(resizer(encode_format="png").store(encoded(image, "PNG", transparency=0)))
    assert grid[0, 0].tolist() == [255, 255, 255]
    assert grid[7, 0].tolist() == [10, 20, 30]


def test_cmyk_becomes_rgb():
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    red, green, blue = pixels(resizer(encode_format="png").store(encoded(cyan, "JPEG")))[8, 8]
    assert red < 30 < 200 < min(green, blue)


def test_a_colour_profile_is_applied():
    # Fully saturated Lab through a profile of our own would need a file; XYZ to sRGB will not do
    # for RGB pixels, so a profile with swapped primaries is built from sRGB's own bytes.
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for tag in (b"rXYZ", b"bXYZ"):
        assert profile.count(tag) == 1
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    name = "sRGB".encode("utf-16-be")
    profile = bytearray(bytes(profile).replace(name, "GRBs".encode("utf-16-be")))
    image = Image.new("RGB", (8, 8), (255, 0, 0))
    content = encoded(image, "PNG", icc_profile=bytes(profile))
    red_now, _, blue_now = pixels(resizer(encode_format="png").store(content))[4, 4]
    assert red_now < 60 < 200 < blue_now


def test_a_broken_colour_profile_is_ignored_as_browsers_do():
    content = encoded(quarters(), "PNG", icc_profile=b"not a profile")
    stored = resizer(encode_format="png").store(content)
    assert np.array_equal(pixels(stored), np.asarray(quarters()))


def test_the_first_frame_of_an_animation_is_kept():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    stored = resizer(encode_format="png").store(content)
    assert pixels(stored)[8, 8].tolist() == [255, 0, 0]


def test_reduced_scale_decoding_stays_close_to_a_full_decode():
    content = picture(1600, 1200)
    stored = resizer(image_size=200, encode_format="png").store(content)
    full = Image.open(io.BytesIO(content)).resize((200, 150), Image.Resampling.LANCZOS)
    error = (pixels(stored).astype(float) - np.asarray(full)) ** 2
    assert 10 * np.log10(255**2 / error.mean()) > 40


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_file_cut_short_is_refused_and_never_half_decoded(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    assert reason_of(content[: len(content) * 2 // 3]) is Reason.BROKEN_IMAGE


def test_a_png_with_damaged_pixel_data_is_refused_every_time_it_is_read():
    content = encoded(quarters(), "PNG")
    broken = content[:-40] + bytes(40)
    assert [reason_of(broken) for _ in range(2)] == [Reason.BROKEN_IMAGE] * 2


def test_too_many_pixels_are_refused_from_the_header_alone():
    assert reason_of(encoded(quarters(), "PNG"), max_pixels=9_599) is Reason.TOO_MANY_PIXELS
    assert resizer(max_pixels=9_600).store(encoded(quarters(), "PNG"))


def test_a_jpeg_with_hundreds_of_scans_is_refused():
    content = encoded(quarters(), "JPEG", progressive=True)
    scan = content.index(b"\xff\xda")
    assert reason_of(content[:-2] + content[scan:-2] * 200 + content[-2:]) is Reason.BROKEN_IMAGE


def test_policies_refuse_with_the_size_that_the_picture_has():
    content = encoded(quarters(), "JPEG")
    assert reason_of(content, min_side=81) is Reason.TOO_SMALL
    assert reason_of(content, max_aspect=1.4) is Reason.ASPECT
    assert resizer(min_side=80, max_aspect=1.5).store(content)
    refused = resizer(min_side=81).outcome(content)
    assert isinstance(refused, Failure)
    assert (refused.original_width, refused.original_height) == (120, 80)


@pytest.mark.parametrize(
    ("mode", "top"), [("F", 1), ("F", 255), ("F", 65535), ("I", 255), ("I", 65535)]
)
def test_float_and_32_bit_grey_fills_the_smallest_customary_range(mode, top):
    kind = np.float32 if mode == "F" else np.int32
    ramp = np.linspace(0, top, 64 * 64).reshape(64, 64).astype(kind)
    stored = resizer(encode_format="png").store(encoded(Image.fromarray(ramp, mode), "TIFF"))
    assert abs(pixels(stored)[..., 0] - ramp.astype(float) * 255 / top).max() <= 1


@pytest.mark.parametrize("value", [1e20, -5.0, float("nan")])
def test_float_pixels_of_no_known_range_are_refused(value):
    content = encoded(Image.new("F", (8, 8), value), "TIFF")
    assert reason_of(content) is Reason.UNSUPPORTED_IMAGE


def noise(width: int = 320, height: int = 240, **options: object) -> bytes:
    """A JPEG in which every block has detail."""
    grid = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return encoded(Image.fromarray(grid), "JPEG", **options)


@pytest.mark.parametrize("size", [64, 1000])
def test_a_jpeg_that_is_damaged_in_its_middle_is_refused(size):
    content = noise()
    for place in range(len(content) // 4, len(content) * 3 // 4, len(content) // 40):
        damaged = content[:place] + bytes(64) + content[place + 64 :]
        Image.open(io.BytesIO(damaged)).load()  # Pillow says nothing
        outcome = resizer(image_size=size).outcome(damaged)
        assert isinstance(outcome, Failure)
        assert outcome.reason is Reason.BROKEN_IMAGE


@pytest.mark.parametrize("padding", [b"\0" * 7, b"\xff" * 3])
def test_padding_before_the_end_and_bytes_behind_it_are_no_damage(padding):
    content = noise()
    whole = resizer(image_size=64, encode_format="png").store(content)
    for harmless in (content[:-2] + padding + content[-2:], content + b"behind the end"):
        stored = resizer(image_size=64, encode_format="png").store(harmless)
        assert np.array_equal(pixels(stored), pixels(whole))


def test_broken_notes_in_a_header_harm_no_picture(real_data):
    path = real_data / "nasty" / "pillow" / "icc-after-SOF.jpg"
    assert resizer(image_size=64).store(path.read_bytes())


@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"\xff\xd0", b"\xff\xfe\0\2"])
def test_a_header_of_nothing_but_filling_is_refused_after_a_bounded_walk(filling):
    content = b"\xff\xd8\xff\xe0" + filling * 4_000_000
    assert reason_of(content) is Reason.BROKEN_IMAGE


def test_a_jpeg_with_two_frames_cannot_be_larger_than_it_says():
    content = noise()
    frame = content.index(b"\xff\xc0")
    small = content[frame : frame + 5] + b"\0\x10\0\x10" + content[frame + 9 : frame + 19]
    assert reason_of(content[:frame] + small + content[frame:]) is Reason.BROKEN_IMAGE


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_kind_of_jpeg_is_decoded(mode, options):
    image = quarters().convert(mode)
    stored = resizer(image_size=120, encode_format="png").store(encoded(image, "JPEG", **options))
    difference = pixels(stored).astype(int) - np.asarray(image.convert("RGB"))
    assert abs(difference).mean() < 6


@pytest.mark.parametrize("size", [(37, 91), (640, 5), (333, 250), (64, 64), (1, 1)])
@pytest.mark.parametrize("mode", ["keep_ratio_largest", "keep_ratio", "center_crop"])
def test_odd_sizes_come_out_at_the_size_that_is_asked_for(size, mode):
    for kind in ("JPEG", "PNG"):
        content = picture(*size, kind=kind)
        stored = resizer(image_size=24, resize_mode=mode).store(content)
        assert Image.open(io.BytesIO(stored.content)).size == (stored.width, stored.height)
        side = {"keep_ratio_largest": max(size), "keep_ratio": min(size)}.get(mode, min(size))
        wanted = min(24, side)
        found = (stored.width, stored.height)
        assert (max(found) if mode == "keep_ratio_largest" else min(found)) == wanted


@pytest.mark.parametrize("ratio", [1.05, 1.4, 2.0, 2.7, 3.9, 6.5, 13.0])
def test_shrinking_stays_close_to_lanczos(ratio):
    full = np.asarray(Image.open(io.BytesIO(picture(1040, 780, "PNG"))))
    size = (round(1040 / ratio), round(780 / ratio))
    wanted = Image.fromarray(full).resize(size, Image.Resampling.LANCZOS)
    error = (shrink(full, size).astype(float) - np.asarray(wanted)) ** 2
    assert 10 * np.log10(255**2 / error.mean()) > 40


def test_shrinking_keeps_one_colour_as_it_is_and_the_middle_in_the_middle():
    flat = np.full((90, 130, 3), (12, 130, 250), np.uint8)
    assert (shrink(flat, (41, 29)) == (12, 130, 250)).all()
    dot = np.zeros((301, 301), np.uint8)
    dot[150, 150] = 255
    small = shrink(dot, (101, 101)).astype(float)
    assert np.unravel_index(small.argmax(), small.shape) == (50, 50)
    assert np.allclose(small, small[::-1, ::-1], atol=1)


@pytest.mark.parametrize("content", [b"", b"\0", b"%PDF-1.7", b"<p><svg></svg></p>"])
def test_what_is_no_picture_is_said_to_be_none(content):
    assert reason_of(content) is Reason.NOT_AN_IMAGE


def test_every_nasty_file_gives_a_picture_or_a_reason_in_bounded_memory(real_data: Path):
    # In a process of its own, so that its peak memory is its own as well.
    code = """
import json, re, sys
from pathlib import Path
from curate.base.reasons import Failure
from curate.pictures.resize import Resizer
from curate.pictures.settings import PictureSettings
root, outcomes = Path(sys.argv[1]), {}
for line in (root / "manifest.jsonl").read_text().splitlines():
    name = json.loads(line)["file"]
    outcome = Resizer(PictureSettings(image_size=256)).outcome((root / name).read_bytes())
    outcomes[name] = outcome.reason.value if isinstance(outcome, Failure) else "stored"
# Not ru_maxrss: that would count what the test process held before this one was started.
status = Path('/proc/self/status').read_text()
peak = int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) * 1024
print(json.dumps({"outcomes": outcomes, "peak": peak}))
"""
    root = real_data / "nasty"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(root)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # libtiff writes to the terminal if one lets it
    report = json.loads(done.stdout)
    outcomes = report["outcomes"]
    assert len(outcomes) == 297
    assert report["peak"] < 1e9
    assert set(outcomes.values()) <= {
        "stored",
        "broken_image",
        "not_an_image",
        "too_many_pixels",
        "unsupported_image",
        "unsupported_format",
    }
    # Pillow's own verdict stands in the manifest: nothing it cannot load may pass as a picture, but
    # for those whose pixels it never looked at, for the length of a text beside them.
    for line in (root / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        pillow = entry["pillow"]
        if pillow["result"] != "ok" and "MAX_TEXT_CHUNK" not in pillow["error"]:
            assert outcomes[entry["file"]] != "stored", entry["file"]
