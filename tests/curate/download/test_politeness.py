"""Many URLs of few hosts: each host gets its turn, its limits and no more than its budget."""

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.download.hosts import HostLimits, Hosts, retry_after
from curate.download.settings import DownloadSettings
from curate.download.stage import DownloadStage
from curate.intake.read import plan_shards
from curate.store.dataset import Dataset
from tests.curate.download.hostile_server import hostile_server

SETTINGS = DownloadSettings(
    image_size=48,
    timeout=2.0,
    total_timeout=5.0,
    retries=0,
    threads=32,
    allow_private_addresses=True,
)


@pytest.fixture
def server():
    with hostile_server() as running:
        yield running


def download(folder: Path, urls: list[str], **changes: object) -> list[dict]:
    """The samples table of a list, downloaded."""
    table = pa.table({"url": urls, "text": [f"number {number}" for number in range(len(urls))]})
    pq.write_table(table, folder / "list.parquet")
    dataset = Dataset(folder / "dataset")
    plan_shards(folder / "list.parquet", dataset)
    DownloadStage(SETTINGS.model_copy(update=changes)).run(dataset, "00000")
    return dataset.read_table("samples", "00000").to_pylist()


def reasons(samples: list[dict]) -> list[str | None]:
    return [sample["reason"] for sample in samples]


def test_no_more_requests_are_under_way_to_one_host_than_allowed(server, tmp_path):
    urls = [server.url(f"slow_good/{number}") for number in range(9)]
    assert reasons(download(tmp_path, urls, host_connections=3)) == [None] * 9
    assert server.most_under_way == 3


def test_requests_to_one_host_begin_at_their_interval(server, tmp_path):
    download(tmp_path, [server.url(f"good/{number}") for number in range(4)], host_interval=0.2)
    times = sorted(time for some in server.times.values() for time in some)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) > 0.1


def test_a_dead_host_costs_its_budget_and_the_others_nothing(server, tmp_path):
    dead = [server.url(f"silent/{number}") for number in range(60)]
    alive = [server.url(f"good/{number}", host="localhost") for number in range(20)]
    samples = download(tmp_path, [*dead, *alive], host_connections=2, host_budget=2.0, timeout=0.5)
    assert reasons(samples)[60:] == [None] * 20
    of_dead = reasons(samples)[:60]
    assert set(of_dead) == {"timeout", "host_budget"}
    assert of_dead.count("timeout") <= 6
    cut = next(sample for sample in samples if sample["reason"] == "host_budget")
    assert cut["detail"] == "127.0.0.1: timeout"
    assert server.requests.total() <= 6 + 20


@pytest.mark.parametrize("behaviour", ["trickle", "trickle_headers", "endless"])
def test_a_trickling_or_endless_host_is_cut_off_as_well(server, tmp_path, behaviour):
    urls = [server.url(f"{behaviour}/{number}") for number in range(40)]
    samples = download(
        tmp_path,
        urls,
        host_connections=2,
        host_budget=0.5,
        total_timeout=0.4,
        max_bytes=200_000_000,
    )
    assert set(reasons(samples)) <= {"timeout", "too_large", "host_budget"}
    assert reasons(samples).count("host_budget") >= 30


def test_a_budget_outlasts_the_shard(server, tmp_path):
    urls = [server.url(f"silent/{number}") for number in range(8)]
    table = pa.table({"url": urls, "text": urls})
    pq.write_table(table, tmp_path / "list.parquet")
    dataset = Dataset(tmp_path / "dataset")
    plan_shards(tmp_path / "list.parquet", dataset, rows_per_shard=4)
    stage = DownloadStage(SETTINGS.model_copy(update={"host_budget": 0.5, "timeout": 0.3}))
    stage.run(dataset, "00000")
    assert stage.run(dataset, "00001") == {"host_budget": 4}


@pytest.mark.parametrize("behaviour", ["wait_seconds", "wait_date"])
def test_retry_after_is_waited_for_by_all_urls_of_the_host(server, tmp_path, behaviour):
    urls = [server.url(f"{behaviour}/1"), *(server.url(f"good/{number}") for number in range(5))]
    samples = download(tmp_path, urls, retries=1, host_connections=1)
    assert reasons(samples) == [None] * 6
    first, again = server.times[f"/{behaviour}/1"]
    assert again - first > 0.9
    others = [when for path, some in server.times.items() if "good" in path for when in some]
    assert not any(first < when < first + 0.9 for when in others)


def test_a_host_that_asks_for_more_time_than_its_budget_is_left_alone(server, tmp_path):
    urls = [server.url("wait_an_hour"), *(server.url(f"good/{number}") for number in range(5))]
    samples = download(tmp_path, urls, retries=3, host_connections=1)
    assert reasons(samples) == ["http_429"] + ["host_budget"] * 5
    assert "asked to wait 3600 s" in samples[1]["detail"]
    assert server.requests.total() == 1


def test_an_error_that_may_pass_is_tried_again_and_a_permanent_one_is_not(server, tmp_path):
    urls = [server.url(path) for path in ("once_busy/1", "error", "forbidden", "cut")]
    samples = download(tmp_path, urls, retries=2)
    assert reasons(samples) == [None, "http_5xx", "http_403", "incomplete_body"]
    counts = [server.requests[f"/{path}"] for path in ("once_busy/1", "error", "forbidden", "cut")]
    assert counts == [2, 3, 1, 3]


def test_a_redirect_to_another_host_counts_on_that_hosts_account(server, tmp_path):
    server.elsewhere = server.url("slow_good/1", host="localhost")
    urls = [server.url(f"elsewhere/{number}") for number in range(6)]
    assert reasons(download(tmp_path, urls, host_connections=2)) == [None] * 6
    assert server.requests["/slow_good/1"] == 6
    assert server.most_under_way <= 4


def test_robots_txt_is_asked_once_and_obeyed_where_that_is_wanted(server, tmp_path):
    server.robots = b"User-agent: *\nAllow: /\n\nUser-agent: CaptionLab\nDisallow: /good/*3$\n"
    urls = [server.url(f"good/{number}") for number in range(5)]
    samples = download(tmp_path, urls, respect_robots_txt=True)
    assert reasons(samples) == [None, None, None, "disallowed_by_robots_txt", None]
    assert server.requests["/robots.txt"] == 1
    assert "/good/3" not in server.requests


def test_robots_txt_is_not_asked_unless_it_is_wanted(server, tmp_path):
    server.robots = b"User-agent: *\nDisallow: /\n"
    assert reasons(download(tmp_path, [server.url("good/1")])) == [None]
    assert "/robots.txt" not in server.requests


@pytest.mark.parametrize(
    ("answer", "reason"), [(404, None), (403, None), (500, "robots_txt_unreachable")]
)
def test_a_missing_robots_txt_forbids_nothing_and_a_failing_one_everything(
    server, tmp_path, answer, reason
):
    server.robots = answer
    samples = download(tmp_path, [server.url("good/1")], respect_robots_txt=True)
    assert reasons(samples) == [reason]


def test_a_crawl_delay_is_kept(server, tmp_path):
    server.robots = b"User-agent: *\nCrawl-delay: 0.2\n"
    urls = [server.url(f"good/{number}") for number in range(3)]
    download(tmp_path, urls, respect_robots_txt=True, host_connections=1)
    times = sorted(server.times[f"/good/{number}"][0] for number in range(3))
    assert times[1] - times[0] > 0.1
    assert times[2] - times[1] > 0.1


# ---- the account of a host, by a clock of its own -----------------------------------------------


def test_quick_answers_pay_back_and_slow_ones_cost():
    hosts = Hosts(HostLimits(budget=10, fair=2))
    for seconds, answered in [(6.0, False), (0.5, True)]:
        hosts.begin("h")
        hosts.end("h", seconds, answered)
    assert hosts.remaining("h") == pytest.approx(10 - 4.5)
    hosts.begin("h")
    hosts.end("h", 8.0, answered=True)
    assert hosts.remaining("h") < 0


def test_the_jitter_of_a_pause_comes_from_the_key_and_the_try():
    hosts = Hosts(HostLimits(backoff=1.0, longest_backoff=60))
    pauses = [hosts.backoff("a", 1), hosts.backoff("a", 2), hosts.backoff("b", 1)]
    assert pauses == [hosts.backoff("a", 1), hosts.backoff("a", 2), hosts.backoff("b", 1)]
    assert len(set(pauses)) == 3
    assert 0.5 <= pauses[0] < 1.5
    assert 1.0 <= pauses[1] < 3.0
    assert hosts.backoff("a", 50) < 90


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Sat, 21 Nov 2026 10:00:30 GMT", 30),
        ("Sat, 21 Nov 2026 09:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
        ("Sat, 99 Nov 2026 10:00:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    now = 1795255200.0  # 2026-11-21 10:00 UTC
    assert retry_after(header, now) == seconds


def test_a_run_with_nothing_to_fetch_ends(tmp_path):
    assert reasons(download(tmp_path, ["", " "])) == ["no_url", "no_url"]
