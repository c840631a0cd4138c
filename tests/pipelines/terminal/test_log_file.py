"""-v, -q and --log-file: what a run tells, on every command through one place."""

import json
import logging
import math
import sys

import pytest
from PIL import Image

from curate.base.progress import tell
from curate.base.telling.events import be_quiet, emit, forget, is_quiet, listen
from pipelines import cli
from pipelines.commands.captioner import command as captioner
from pipelines.commands.recaption import RecaptionSummary
from pipelines.runners.local import Local
from pipelines.terminal.log_file import LogFile
from pipelines.terminal.quiet import show
from tests.curate.tiny import drawn

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.fixture
def caplab(monkeypatch, capsys):
    """Run the command as the console script does; (exit status, stdout, stderr)."""

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["caplab", *map(str, arguments)])
        status: object = 0
        try:
            cli.run()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def test_what_happens_is_told_as_lines_of_json_aloud_or_not_at_all(caplab, tmp_path):
    pictures, log = tmp_path / "pictures", tmp_path / "logs" / "run.jsonl"
    pictures.mkdir()
    for number in range(3):
        Image.fromarray(drawn(number, 40, 40)).save(pictures / f"{number}.png")
    hashes = tmp_path / "hashes.txt"
    hashes.write_text(f"{'0' * 32}\nsha1:{'0' * 40}\n")  # sha1 is not compared, which is a warning
    first = ("curate", pictures, "--until", "download", "--hash-list", hashes)
    road = (*first, "--rows-per-shard", 2, "--log-file", log)
    status, printed, told = caplab(*road, "--out", tmp_path / "a", "-q")
    assert (status, told) == (0, "")
    assert printed.startswith("3 rows in = 3 stored")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert all({"time", "level", "event"} <= set(event) for event in events)
    assert [e["event"] for e in events][:2] == ["began", "told"]
    assert {e["level"] for e in events} == {"info", "warning"}
    shards = [e for e in events if e["event"] == "shard"]
    assert [(e["stage"], e["shard"], e["rows"], e["counts"]) for e in shards] == [
        ("store", "00000", 2, {"stored": 2}),
        ("store", "00001", 1, {"stored": 1}),
    ]
    counted = {e["what"]: (e["done"], e["unit"]) for e in events if e["event"] == "counted"}
    assert counted["store"] == (3, "sample")
    assert (events[-1]["event"], events[-1]["status"]) == ("ended", 0)

    (next((tmp_path / "a").glob("tables/samples/*00001*"))).unlink()
    status, _, told = caplab("check", tmp_path / "a", "-q", "--log-file", log)
    last = json.loads(log.read_text().splitlines()[-1])
    assert (status, told, last["event"], last["status"]) == (1, "", "ended", 1)

    status, _, told = caplab(*road[:-2], "--out", tmp_path / "b", "-v")
    assert "shard stage=store shard=00001 rows=1 counts={'stored': 1}" in told
    assert "reading" in told

    # What ends a command is told as well, and nothing of one run reaches the next.
    status, _, told = caplab("check", tmp_path / "none", "-q", "--log-file", log)
    assert (status, "is not a dataset" in told) == (2, True)
    last = json.loads(log.read_text().splitlines()[-1])
    assert (last["event"], last["level"], last["status"]) == ("failed", "error", 2)
    assert "is not a dataset" in last["text"]
    emit("nobody hears it")
    assert not is_quiet()
    assert json.loads(log.read_text().splitlines()[-1]) == last


def test_every_command_has_them_and_one_inside_a_group_too(caplab, tmp_path):
    (tmp_path / "file").touch()
    status, _, told = caplab("select", tmp_path, "--log-file", tmp_path / "file" / "log")
    assert status == 2
    assert told.count("\n") == 1
    assert "cannot be written" in told
    for words in (["view"], ["captioner", "fit"], ["bench", "select"]):
        _, shown, _ = caplab(*words, "--help")
        assert "--log-file" in shown
    assert {"fit"} == set(captioner.commands)


def test_a_line_is_json_whatever_is_told(tmp_path):
    log = LogFile(tmp_path / "log")
    hostile = {"\udc80\n": (math.nan, math.inf), "path": tmp_path, 3: {"a\x00": "\u2028\ud800"}}
    log("told", "info", hostile)
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail) | {"time": 0} == {
        "time": 0,
        "level": "info",
        "event": "told",
        "?\n": [None, None],
        "path": str(tmp_path),
        "3": {"a\x00": "\u2028?"},
    }


def test_a_log_whose_disk_is_full_is_told_once_and_the_run_goes_on(caplab, tmp_path):
    status, _, told = caplab("check", tmp_path / "none", "-q", "--log-file", "/dev/full")
    assert status == 2
    first, second = told.splitlines()
    assert first.startswith("caplab: --log-file /dev/full cannot be written any more (No space")
    assert "is not a dataset" in second


def test_a_quiet_run_has_quiet_workers_and_hears_them(capfd):
    heard = []
    listen(lambda *event: heard.append(event))
    be_quiet(True)
    try:
        with Local().workers(says, 1) as crew:
            for words in ("a remark", "another"):
                assert crew[0].submit(words).result() == "done"
    finally:
        forget()
    assert capfd.readouterr() == ("", "")
    assert heard == [
        (event, level, {"text": words})
        for words in ("a remark", "another")
        for event, level in (("counted", "info"), ("told", "warning"))
    ]


def says(words: str) -> str:
    print(words)
    print(words, file=sys.stderr)
    emit("counted", text=words)
    logging.getLogger("curate.download").warning(words)
    return "done"


def test_names_and_texts_of_strangers_move_no_cursor_and_begin_no_line(caplab, capsys):
    hostile = "a\x1b[2K\rb\u202e\nc"
    for words in (["check", hostile], ["check", hostile, "-v"]):
        _, _, told = caplab(*words)
        assert not {"\x1b", "\r", "\u202e"} & set(told)
        assert "␛[2K␍b⟨U+202E⟩" in told
        assert not any(line.startswith("c") and "caplab" not in line for line in told.split("\n"))
    tell(hostile)
    show(RecaptionSummary(hostile, {"alt ok": 1}, {}))
    assert capsys.readouterr() == (
        "1 caption by a␛[2K␍b⟨U+202E⟩\nc\n  alt ok 1\n",
        "a␛[2K␍b⟨U+202E⟩\nc\n",
    )
