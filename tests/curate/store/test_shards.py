"""A shard's tar: the very bytes that Python's tarfile would write."""

import io
import tarfile
from pathlib import Path

import pytest

from curate.store.shards import iter_members, write_shard

SAMPLES = [
    (f"{number:032x}", {"jpg": bytes(range(256)) * number, "txt": "é".encode(), "json": b"{}"})
    for number in range(0, 60, 7)
]


def by_tarfile(path: Path, samples: list) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples:
            for extension, content in members.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(content)
                member.mode = 0o644
                tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    "samples", [[], SAMPLES[:1], SAMPLES, [("k" * 90 + "é" * 3, {"jpg": b"x"})]]
)
def test_a_shard_is_what_tarfile_writes(tmp_path, samples):
    write_shard(tmp_path / "ours.tar", samples)
    by_tarfile(tmp_path / "theirs.tar", samples)
    assert (tmp_path / "ours.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()
    assert list(iter_members(tmp_path / "ours.tar")) == samples


def test_a_long_name_is_written_as_well(tmp_path):
    samples = [("folder/" + "k" * 92, {"jpg": b"x"})]
    write_shard(tmp_path / "ours.tar", samples)
    with tarfile.open(tmp_path / "ours.tar") as tar:
        assert tar.getnames() == ["folder/" + "k" * 92 + ".jpg"]
