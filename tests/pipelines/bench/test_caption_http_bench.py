from pathlib import Path

from curate.served.address import Server
from curate.served.models import served_model
from pipelines.bench.caption.over_http import HttpRun, http_figures
from pipelines.bench.common.loopback import CAPTION, MODEL, bare_rate, slow_captioner, work
from recaption.engines.http.engine import HttpEngine
from recaption.engines.protocol import CaptionRequest, Sampling


def test_the_benchs_server_is_one_that_the_engine_takes_for_a_captioner() -> None:
    with slow_captioner(0.01) as port:
        url = f"http://127.0.0.1:{port}/v1"
        place = Server(url, served_model(Server(url)))
        request = CaptionRequest(
            [None] * 20, ["a long prompt " * 50_000] * 20, [0] * 20, Sampling(9)
        )
        outcomes = HttpEngine(place, in_flight=3).caption(request)
        assert [outcome.text for outcome in outcomes] == [CAPTION] * 20
        assert work(port).answers == 21, "the first one opened the engine"
        assert bare_rate(port, [b"{}"] * 20, 4) > 0


def test_captions_that_tell_requests_apart_are_the_same_again() -> None:
    with slow_captioner(0, telling=True) as port:
        place = Server(f"http://127.0.0.1:{port}/v1", MODEL)
        request = CaptionRequest([None] * 3, ["a", "b", "a" * 300_000], [0] * 3, Sampling(9))
        texts, again = (
            [outcome.text for outcome in HttpEngine(place).caption(request)] for _ in range(2)
        )
    assert texts == again
    assert len(set(texts)) == 3


def test_every_figure_is_there_and_no_caption_is_lost(tmp_path: Path) -> None:
    run = HttpRun(
        delay=0.02, in_flight=4, requests=24, resized_requests=8, rounds=1, ray_requests=0
    )
    figures = http_figures([], 8, tmp_path, run)
    names = {figure.name.removeprefix("caption/http/") for figure in figures}
    assert names == {
        "server_ceiling_without_delay",
        "captions_per_second/bare_client",
        "captions_per_second/engine/stored",
        "captions_per_second/engine/resized",
        "captions_per_second/engine/resized/of_the_limit",
        "captions_per_second/stage",
        "cpu_per_caption/engine/stored",
        "cpu_per_caption/engine/resized",
        "cpu_per_caption/server",
        "bytes_per_picture",
    }
    # Nothing that waits for each answer can be faster than the answers come.
    for figure in figures:
        if figure.name.endswith(("bare_client", "second/engine/stored")):
            assert 0 < figure.value <= run.ideal
