"""What a stranger's tar header claims is neither allocated nor searched for minutes."""

import io
import tarfile

import pytest

from curate.intake.tar_headers import BoundedTarInfo
from tests.curate.intake.test_local_pictures import jpeg, samples, take_in

END = bytes(1024)


def member(name: str, content: bytes, size: int | None = None, kind: bytes = b"0") -> bytes:
    """A member whose header may claim another size."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def pax(*records: str, kind: bytes = b"x") -> bytes:
    return member("pax", b"".join(_record(record) for record in records), kind=kind)


def _record(text: str) -> bytes:
    length = len(text) + 2
    while len(f"{length} {text}\n") != length:
        length += 1
    return f"{length} {text}\n".encode()


GOOD = member("good.jpg", jpeg(1))
AFTER = member("after.jpg", jpeg(2)) + END
DIGITS = b"1" * 200_000
HOSTILE = {
    "an extended header of digits": member("x", DIGITS, kind=b"x") + AFTER,
    "a value of digits": pax(f"comment={'1' * 200_000}") + AFTER,
    "a global header of digits": member("g", DIGITS, kind=b"g") + AFTER,
    "an extended header of a tebibyte": member("x", b"x" * 600, 1 << 40, b"x"),
    "a long name of a tebibyte": member("x", b"x" * 600, 1 << 40, b"L"),
    "a negative size": member("x.jpg", b"", -1024) + AFTER,
    "a negative size in an extended header": pax("size=-4096") + AFTER,
    "a size beyond all offsets": member("x.jpg", b"x" * 600, 1 << 80),
    "a charset that is none": pax("hdrcharset=\xff").replace(b"\xc3\xbf", b"\xff\xff") + AFTER,
    "a sparse map that is none": pax("GNU.sparse.map=a,b") + AFTER,
    "a sparse size that is none": pax("GNU.sparse.size=a") + AFTER,
    "headers of headers": pax("comment=x") * 2000 + AFTER,
    "names without end in global headers": b"".join(
        pax(*(f"k{n}.{m}=x" for m in range(500)), kind=b"g") for n in range(3)
    )
    + AFTER,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_costs_a_row_and_is_not_believed(tmp_path, name):
    (tmp_path / "a.tar").write_bytes(GOOD + HOSTILE[name])
    reasons = [s["reason"] for s in samples(take_in(tmp_path / "a.tar", tmp_path / "out"))]
    assert (reasons[0], reasons[-1]) == (None, "damaged_source")


def test_a_size_that_is_a_lie_is_one_row_that_says_so_and_is_never_allocated(tmp_path):
    (tmp_path / "a.tar").write_bytes(GOOD + member("huge.jpg", b"", 1 << 40) + b"x" * 300)
    good, huge = samples(take_in(tmp_path / "a.tar", tmp_path / "out"))
    assert good["reason"] is None
    assert (huge["reason"], huge["detail"]) == ("too_large", "1,099,511,627,776 bytes")


def test_what_may_lie_behind_a_size_that_is_a_lie_is_told(tmp_path):
    (tmp_path / "a.tar").write_bytes(member("huge.jpg", b"", 1 << 40) + AFTER)
    reasons = [s["reason"] for s in samples(take_in(tmp_path / "a.tar", tmp_path / "out"))]
    assert reasons == ["too_large", "damaged_source"]


def _sparse(*records: str) -> bytes:
    return pax(*records) + GOOD


def _old_sparse(content: bytes, size: int) -> bytes:
    """A GNU sparse header of the old kind with the file's real size."""
    header = bytearray(content[:512])
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content[512:]


@pytest.mark.parametrize(
    "sparse",
    [
        _sparse("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=5000"),
        _sparse("GNU.sparse.size=5000", "GNU.sparse.numblocks=1"),
        _sparse("GNU.sparse.map=0,500", "GNU.sparse.size=5000"),
        _old_sparse(member("good.jpg", jpeg(1), kind=tarfile.GNUTYPE_SPARSE), 5000),
    ],
)
def test_a_sparse_picture_is_a_failed_row_and_its_neighbours_are_stored(tmp_path, sparse):
    (tmp_path / "a.tar").write_bytes(sparse + AFTER)
    reasons = [s["reason"] for s in samples(take_in(tmp_path / "a.tar", tmp_path / "out"))]
    assert reasons == ["not_an_image", None]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_honest_headers_are_read_as_tarfile_reads_them(form):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name in ("a.jpg", f"{'folder/' * 12}b.jpg", "größe.txt", f"{'c' * 90}.json"):
            info = tarfile.TarInfo(name)
            info.size = 700
            info.pax_headers = {"comment": "9" * 200} if form == tarfile.PAX_FORMAT else {}
            tar.addfile(info, io.BytesIO(bytes(700)))
    found = []
    for kind in (tarfile.TarInfo, BoundedTarInfo):
        with tarfile.open(fileobj=io.BytesIO(buffer.getvalue()), mode="r:", tarinfo=kind) as tar:
            found.append([(m.name, m.size, m.offset, m.offset_data, m.pax_headers) for m in tar])
    assert len(found[0]) == 4
    assert found[0] == found[1]
