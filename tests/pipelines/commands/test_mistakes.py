"""What a person gets wrong: one clear sentence, a non-zero exit, and nothing is overwritten."""

import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import cli
from pipelines.world import weights


@pytest.fixture
def caplab(monkeypatch, capsys):
    """Run the command as the console script does; returns exit code and stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["caplab", *map(str, arguments)])
        code = 0
        try:
            cli.run()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return code, capsys.readouterr().err.strip()

    return run


@pytest.fixture
def urls(tmp_path):
    path = tmp_path / "urls.parquet"
    pq.write_table(pa.table({"url": ["http://127.0.0.1:9/a.jpg"], "text": ["a"]}), path)
    return path


CLIP = ("--clip-model", f"local-dir:{weights.clip_dir()}", "--clip-pretrained", "none")


def one_sentence(message: str, *words: str) -> None:
    *begun, last = message.splitlines()
    assert len(begun) <= 1, message  # what the command began with
    assert not any(line.startswith("caplab:") for line in begun)
    assert last.startswith("caplab: ")
    for word in words:
        assert word in last


def test_a_missing_input(caplab, tmp_path):
    code, message = caplab("curate", tmp_path / "none.parquet", "--out", tmp_path / "out", *CLIP)
    assert code == 2
    one_sentence(message, "none.parquet", "does not exist")
    assert not (tmp_path / "out").exists()


def test_an_empty_input(caplab, tmp_path):
    path = tmp_path / "empty.csv"
    path.write_text("url,text\n")
    code, message = caplab("curate", path, "--out", tmp_path / "out", *CLIP)
    assert code == 2
    one_sentence(message, "empty.csv")
    assert not (tmp_path / "out").exists()


def test_a_missing_column(caplab, tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("address,words\nhttp://a/b.jpg,x\n")
    code, message = caplab("curate", path, "--out", tmp_path / "out", *CLIP)
    assert code == 2
    one_sentence(message, "address")
    assert not (tmp_path / "out").exists()


def test_an_unreadable_file(caplab, tmp_path):
    path = tmp_path / "list.parquet"
    path.write_text("this is no parquet")
    code, message = caplab("curate", path, "--out", tmp_path / "out", *CLIP)
    assert code == 2
    one_sentence(message, "list.parquet")
    assert not (tmp_path / "out").exists()


def test_a_setting_out_of_range(caplab, urls, tmp_path):
    code, message = caplab("curate", urls, "--out", tmp_path / "out", *CLIP, "--image-size", "0")
    assert code == 2
    one_sentence(message, "image_size")
    assert not (tmp_path / "out").exists()


def test_an_unknown_setting_in_yaml(caplab, urls, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("image_sise: 64\n")
    code, message = caplab("curate", urls, "--out", tmp_path / "out", "--config", path)
    assert code == 2
    one_sentence(message, "image_sise", "did you mean 'image_size'")
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_there(caplab, urls, tmp_path):
    arguments = ("--out", tmp_path / "out", *CLIP, "--aesthetic-head", tmp_path / "no.safetensors")
    code, message = caplab("curate", urls, *arguments)
    assert code == 2
    one_sentence(message, "no.safetensors")
    assert not (tmp_path / "out").exists()


def test_a_directory_of_other_settings_is_not_touched(caplab, curated, small_web):
    before = {p: p.stat().st_mtime_ns for p in curated.directory.rglob("*") if p.is_file()}
    arguments = ("--out", curated.directory, *CLIP, "--image-size", "128")
    code, message = caplab("curate", small_web.urls, *arguments, "--name", "other")
    assert code == 3
    one_sentence(message, "other settings", "image_size was 64, now 128")
    assert before == {p: p.stat().st_mtime_ns for p in curated.directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("aesthetics >= 5", ("aesthetic",)),
        ("aesthetic >=", ()),
        ("true; DROP TABLE samples", ()),
        ("(SELECT count(*) FROM read_csv('/etc/passwd')) > 0", ()),
    ],
)
def test_a_rule_that_does_not_work(caplab, curated, where, words):
    code, message = caplab("select", curated.directory, "--name", "x", "--where", where)
    assert code == 2
    one_sentence(message, *words)
    assert "x" not in curated.selections()


def test_an_unknown_selection(caplab, curated, tmp_path):
    code, message = caplab("train", curated.directory, "--selection", "no", "--out", tmp_path / "r")
    assert code == 3
    one_sentence(message, "'no'", "clean")
    assert not (tmp_path / "r").exists()


def test_a_blend_of_captions_that_nobody_wrote(caplab, curated, tmp_path):
    arguments = ("--selection", "clean", "--captions", "poem=1", "--out", tmp_path / "r")
    code, message = caplab("train", curated.directory, *arguments)
    assert code == 2
    one_sentence(message, "poem")


def test_a_captioner_that_is_not_there(caplab, curated, tmp_path):
    code, message = caplab("recaption", curated.directory, "--captioner", tmp_path / "no-model")
    assert code == 2
    one_sentence(message, "no-model")


def test_a_mistyped_option_names_the_right_one(caplab, curated):
    code, message = caplab("select", curated.directory, "--nane", "x")
    assert code == 2
    assert "--name" in message


def test_a_report_of_something_else(caplab, tmp_path):
    code, message = caplab("report", tmp_path)
    assert code == 3
    one_sentence(message, "neither a dataset nor a finished run")
