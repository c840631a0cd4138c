"""What is on a hash list is refused before it is stored: by its bytes, or by how it looks."""

import gzip
import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.base.errors import ConfigError
from curate.base.reasons import Failure, FailureError, Reason
from curate.pictures.hash_list import HashList, hash_list
from curate.pictures.pdq import PdqIndex, pdq_hash
from curate.pictures.resize import Resizer
from curate.pictures.settings import PictureSettings
from tests.curate.tiny import drawn, encoded

# Of pdqhash 0.2.8, the reference's own C++, on pictures of tests.curate.tiny.drawn.
REFERENCE = {
    (0, 64, 64): (
        "ec68b53670f1ed2217b41add870656d31397358aac01d23de64927f85a3cb58d",
        100,
    ),
    (1, 100, 37): (
        "5b9552935a34f0d250feb92525cb2d7c644af06243d4273d3196d369dab15acb",
        100,
    ),
    (2, 512, 300): (
        "e40aee590f8689bbca3fc644f869318633b553a5d260276eda692d8b9a1653cd",
        100,
    ),
    (3, 40, 40): (
        "9205931b4fea649f592f136430d4ede4e47adacced5e78b04c8d5aac8e448747",
        100,
    ),
}


def pdq_hex(pixels):
    return pdq_hash(pixels)[0].tobytes().hex()


def test_the_hash_is_that_of_the_reference():
    for (seed, width, height), (expected, quality) in REFERENCE.items():
        found, told = pdq_hash(drawn(seed, width, height))
        assert (found.tobytes().hex(), told) == (expected, quality)
    assert pdq_hash(np.full((80, 90, 3), 128, np.uint8))[1] == 0
    assert pdq_hash(np.zeros((4, 90, 3), np.uint8))[1] == 0


def test_the_index_finds_what_comparing_all_finds():
    random = np.random.default_rng(0)
    listed = random.integers(0, 256, (2000, 32), dtype=np.uint8)
    index = PdqIndex(listed)
    for row in range(60):
        bits = np.unpackbits(listed[row])
        flipped = random.choice(256, row, replace=False)
        bits[flipped] ^= 1
        asked = np.packbits(bits)
        nearest = int(np.bitwise_count(listed ^ asked).sum(axis=1).min())
        assert index.nearest(asked) == (nearest if nearest <= 31 else None)
        assert index.nearest(asked, 8) == (nearest if nearest <= 8 else None)


@pytest.fixture
def write(tmp_path):
    def written(text):
        path = tmp_path / f"list{time.monotonic_ns()}.csv"
        path.write_text(text)
        return str(path)

    return written


def stored(content, path, **settings):
    return Resizer(PictureSettings(hash_list=path, image_size=128, **settings)).outcome(content)


def test_a_listed_file_is_refused_by_any_of_its_hashes_and_its_neighbour_is_stored(write):
    listed, other = (encoded(drawn(n, 200, 150), "JPEG") for n in (1, 2))
    digests = {kind: hashlib.new(kind, listed).hexdigest() for kind in ("md5", "sha256")}
    for text in (
        f"# known\nmd5:{digests['md5']}\n",
        digests["md5"].upper(),
        f"sha256\n{digests['sha256']}\n",
        f"id;SHA-256;note\n7;{digests['sha256']};x\n8;;\n",
        f"type,indicator\nHASH_SHA1,{'0' * 40}\nHASH_MD5,{digests['md5']}\n",
    ):
        path = write(text)
        refused = stored(listed, path)
        assert isinstance(refused, Failure)
        assert refused.reason is Reason.LISTED_HASH
        assert not refused.reason.may_pass
        assert path.rpartition("/")[2] in refused.detail
        assert not isinstance(stored(other, path), Failure)


@pytest.mark.parametrize("mode", ["keep_ratio_largest", "center_crop", "no"])
def test_a_picture_is_known_by_its_looks_however_it_was_saved(write, mode):
    picture = drawn(3, 300, 200)
    path = write(f"signal_type\thash\nPDQ\t{pdq_hex(picture)}\n")
    smaller = Image.fromarray(picture).resize((211, 140))
    for copy in (encoded(picture, "WEBP", quality=60), encoded(np.asarray(smaller), "JPEG")):
        refused = stored(copy, path, resize_mode=mode)
        assert isinstance(refused, Failure)
        assert refused.reason is Reason.LISTED_HASH
        assert "pdq within" in refused.detail
    assert not isinstance(stored(encoded(drawn(4, 300, 200)), path, resize_mode=mode), Failure)


def test_a_turned_or_mirrored_copy_is_known_where_that_is_asked_for(write):
    picture = drawn(3, 300, 200)
    path = write(f"pdq:{pdq_hex(picture)}")
    for turn in range(4):
        for posture in (np.rot90(picture, turn), np.rot90(picture, turn)[:, ::-1]):
            copy = encoded(np.ascontiguousarray(posture), "JPEG")
            assert isinstance(stored(copy, path, hash_turned=True), Failure)
            same = np.array_equal(posture, picture)
            assert isinstance(stored(copy, path), Failure) == same
    assert not isinstance(stored(encoded(drawn(4, 300, 200)), path, hash_turned=True), Failure)


def test_lists_as_md5sum_windows_and_gzip_write_them(tmp_path):
    digest = hashlib.md5(b"a").hexdigest()
    text = f"# known\r\n\r\n{digest.upper()} *a b.jpg\r\nmd5:{'1' * 32}  # a remark\r\n"
    path = tmp_path / "list.txt.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.encode()))
    found = HashList(path)
    assert found.counts == {"md5": 2}
    with pytest.raises(FailureError, match="listed_hash"):
        found.check_bytes(b"a")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ConfigError, match="cannot be read"):
        HashList(path)


def test_a_plain_picture_is_near_every_other_and_so_is_none(write):
    grey = np.full((90, 90, 3), 90, np.uint8)
    path = write(f"pdq:{pdq_hex(grey)}")
    assert not isinstance(stored(encoded(grey), path), Failure)


def test_a_list_is_read_once_while_it_stays_as_it_is(write):
    path = write("md5:" + "0" * 32)
    assert hash_list(path, 31) is hash_list(path, 31)
    with open(path, "a") as file:
        file.write("\nmd5:" + "1" * 32)
    found = hash_list(path, 31)
    assert found is not None
    assert found.counts == {"md5": 2}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0" * 64, "line 1: 64 hex digits may be a sha256 or a PDQ"),
        ("md5:" + "0" * 31, "is no md5"),
        ("md5\n" + "0" * 32 + "\nzz", "line 3: 'zz' is no md5"),
        ("hello", "'hello' is no hash"),
        ("", "holds no md5"),
        ("sha1:" + "0" * 40, "holds no md5"),
    ],
)
def test_a_list_that_cannot_be_meant_is_one_sentence(write, text, told):
    with pytest.raises(ConfigError, match=told):
        Resizer(PictureSettings(hash_list=write(text)))
    with pytest.raises(ConfigError, match="cannot be read"):
        hash_list("/no/such/list", 31)


def test_hashes_of_other_types_are_left_out_and_told(write, caplog):
    found = HashList(Path(write("type,value\nPDQ," + "a" * 64 + "\nPDNA,xyz\n")))
    assert found.counts == {"pdq": 1}
    assert "1 pdna" in caplog.text
