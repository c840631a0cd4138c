"""What an input argument names."""

from pathlib import Path

import pytest

from curate.base.errors import ConfigError
from curate.intake.locations import locate


@pytest.fixture
def lists(tmp_path, monkeypatch) -> Path:
    names = ("[v2]/a.csv", "v/a.csv", "2/a.csv", "{x,y}/a0.csv", "x/a0.csv", "back\\slash/a1.csv")
    for name in (*names, "a*.csv", "ab.csv", "file{1,2}.csv", "file1.csv", "sp%20 ?/a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[v2]", ["[v2]/a.csv"]),
        ("[v2]/a.csv", ["[v2]/a.csv"]),
        ("[v2]/*.csv", ["[v2]/a.csv"]),
        ("[v]/*.csv", ["v/a.csv"]),
        ("a*.csv", ["a*.csv"]),
        ("?b.csv", ["ab.csv"]),
        ("{x,y}/a*.csv", ["{x,y}/a0.csv"]),
        ("{x,y}/a{0..0}.csv", ["{x,y}/a0.csv"]),
        ("{x,v}/a{,0}.csv", None),
        ("back\\slash/a{1..1}.csv", ["back\\slash/a1.csv"]),
        ("file{1,2}.csv", ["file{1,2}.csv"]),
        ("file{1..1}.csv", ["file1.csv"]),
        ("sp%20 ?/*.csv", ["sp%20 ?/a.csv"]),
        ("file://TMP/sp%20 ?/a.csv", ["sp%20 ?/a.csv"]),
        ("file://TMP/sp%2520%20%3F/a.csv", ["sp%20 ?/a.csv"]),
        ("file://TMP/[v2]/a.csv", ["[v2]/a.csv"]),
    ],
)
def test_a_name_that_exists_as_it_stands_is_no_pattern(lists, given, expected):
    given = given.replace("TMP", str(lists))
    if expected is None:
        with pytest.raises(ConfigError, match="does not exist"):
            locate(given)
        return
    found = locate(given)
    files = found.files if found.files is not None else found.store.walk()
    paths = [Path(found.store.root, file) for file in files]
    assert [str(path.relative_to(lists)) for path in paths] == expected
