"""A step is found by its name, whoever ships it."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.base.errors import ConfigError
from curate.base.registry import known, load

BUILTIN = {"sqrt": "math:sqrt", "broken": "no_such_module:x"}


def _install(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package on disk, as pip leaves it: a module and the metadata that names its step."""
    (site / "their_steps.py").write_text("class Theirs:\n    depth = 3\n")
    info = site / "their_steps-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-steps\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[caption_lab.gates]\ntheirs = their_steps:Theirs\nsqrt = their_steps:Theirs\n"
    )
    monkeypatch.syspath_prepend(str(site))


def test_a_builtin_name_an_entry_point_and_a_module_path_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import math

    _install(tmp_path, monkeypatch)
    assert load("gates", "theirs", BUILTIN) is load("gates", "their_steps:Theirs", BUILTIN)
    assert load("gates", "their_steps:Theirs.depth", BUILTIN) == 3
    # Nobody takes a built-in name.
    assert load("gates", "sqrt", BUILTIN) is math.sqrt
    assert known("gates", BUILTIN) == ["sqrt", "broken", "theirs"]
    assert known("scorers", BUILTIN) == ["sqrt", "broken"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("sqr", "no gates named 'sqr'; known are sqrt, broken, or one of your own"),
        ("no_such_module:x", "No module named 'no_such_module'.*PYTHONPATH"),
        ("math:no_such_function", "no attribute 'no_such_function'"),
        ("math:", "no gates named 'math:'"),
        (":x", "no gates named ':x'"),
    ],
)
def test_what_cannot_be_found_is_said_in_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load("gates", name, BUILTIN)


@pytest.mark.parametrize("text", ["class Broken(:", "raise RuntimeError('no licence')"])
def test_a_module_that_does_not_import_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "their_broken.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"'their_broken:x' cannot be imported: .*Error: "):
        load("gates", "their_broken:x", BUILTIN)


def test_a_fault_of_our_own_is_not_dressed_up() -> None:
    with pytest.raises(ModuleNotFoundError):
        load("gates", "broken", BUILTIN)
