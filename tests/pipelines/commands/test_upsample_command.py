import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from curate.base.errors import ConfigError
from pipelines.cli import cli

sys.path.append(str(Path(__file__).parents[2] / "recaption"))


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["upsample", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_the_command_rehearses_writes_and_continues(tmp_path: Path) -> None:
    from moody_server import moody_server

    prompts, out = tmp_path / "prompts.txt", tmp_path / "out.parquet"
    prompts.write_text("a red house\na blue house\n")
    with moody_server() as moody:
        moody.story = " Two small dogs sleep on the warm floor."
        asking = (str(prompts), "--captioner", moody.url)
        assert "2 prompts" in run(*asking, "--dry-run", "5")
        assert not out.exists()
        assert "ok                               2" in run(*asking, "--out", str(out))
        prompts.write_text("a red house\na green house\n")
        assert "kept                             1" in run(*asking, "--out", str(out))
    assert pq.read_table(out).column("prompt").to_pylist() == ["a red house", "a green house"]


def test_mistakes_get_one_sentence_before_anything_is_asked(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red house\n")
    for arguments, words in (
        (["--captioner", "http://127.0.0.1:9/v1"], "--out"),
        (["--captioner", "http://me:pw@host/v1", "--out", "x.parquet"], "password"),
        (["--captioner", "x", "--out", "x.parquet", "--min-words", "90"], "min_words"),
        (["--captioner", "x", "--out", "x.csv"], "parquet"),
        (["--captioner", "x", "--dry-run", "0"], "--dry-run"),
        (["--captioner", "x", "--out", "x.parquet", "--reject", "too_shrt"], "too_short"),
    ):
        with pytest.raises(ConfigError, match=words):
            CliRunner().invoke(cli, ["upsample", str(prompts), *arguments], catch_exceptions=False)
