"""Files appear whole or not at all."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from curate.base.errors import ConfigError
from curate.base.files import (
    atomic_path,
    fingerprint,
    plain_path,
    read_json,
    sha256_file,
    write_json,
)
from curate.base.weights import load_state_dict, weight_hashes


def test_an_error_while_writing_leaves_the_old_file_and_no_scrap(tmp_path):
    path = tmp_path / "table"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), atomic_path(path) as temporary:
        temporary.write_text("new, but hal\udcff", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_of_equal_values_has_equal_bytes(tmp_path):
    write_json(tmp_path / "a", {"x": 1, "y": 2})
    write_json(tmp_path / "b", {"y": 2, "x": 1})
    assert sha256_file(tmp_path / "a") == sha256_file(tmp_path / "b")
    assert read_json(tmp_path / "a") == {"x": 1, "y": 2}
    assert fingerprint({"x": 1, "y": 2}) == fingerprint({"y": 2, "x": 1})


def test_safetensors_load_and_a_pickle_is_refused_unless_asked_for(tmp_path):
    torch = pytest.importorskip("torch")
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "head.safetensors")
    assert load_state_dict(tmp_path / "head.safetensors")["w"].tolist() == [1, 1]
    torch.save({"w": torch.ones(2)}, tmp_path / "head.pth")
    with pytest.raises(ConfigError, match="--allow-pickle"):
        load_state_dict(tmp_path / "head.pth")
    assert load_state_dict(tmp_path / "head.pth", allow_pickle=True)["w"].tolist() == [1, 1]


def test_a_broken_weights_file_is_named(tmp_path):
    (tmp_path / "head.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not json at all.")
    with pytest.raises(ConfigError, match="not a valid safetensors file"):
        load_state_dict(tmp_path / "head.safetensors")


def test_weight_hashes_name_every_file_of_a_folder(tmp_path):
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    hashes = weight_hashes(tmp_path)
    assert hashes == {"model.safetensors": sha256_file(tmp_path / "model.safetensors")}
    with pytest.raises(ConfigError, match="no weights"):
        weight_hashes(tmp_path / "absent")


def test_a_plain_path_leads_to_the_same_file_under_a_name_without_patterns(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    odd = tmp_path / "[a]" / "b*" / "c"
    odd.mkdir(parents=True)
    (odd / "file").write_text("x")
    assert plain_path(odd) == plain_path(odd)
    assert not set("*?[]\\") & set(str(plain_path(odd / "file")))
    assert plain_path(odd / "file").read_text() == "x"
    assert plain_path(tmp_path / "[a]").name != plain_path(odd.parent).name
    assert plain_path(tmp_path / "file") == tmp_path / "file"
    assert len(list((tmp_path / "tmp").glob("caplab-links-*/*"))) == 2
