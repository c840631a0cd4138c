from pathlib import Path

from pipelines.bench.bare_client import bare_rate
from pipelines.bench.caption_http import HttpRun, http_figures
from pipelines.bench.slow_captioner import CAPTION, slow_captioner
from recaption.engines.http.address import Server
from recaption.engines.http.engine import HttpEngine
from recaption.engines.http.models import served_model
from recaption.engines.protocol import CaptionRequest, Sampling


def test_the_benchs_server_is_one_that_the_engine_takes_for_a_captioner() -> None:
    with slow_captioner(0.01) as server:
        place = Server(server.base_url, served_model(Server(server.base_url)))
        request = CaptionRequest(
            [None] * 20, ["a long prompt " * 50_000] * 20, [0] * 20, Sampling(9)
        )
        outcomes = HttpEngine(place, in_flight=3).caption(request)
        assert [outcome.text for outcome in outcomes] == [CAPTION] * 20
        assert server.work().answers == 21, "the first one opened the engine"
        assert bare_rate(server.port, [b"{}"] * 20, 4) > 0


def test_every_figure_is_there_and_no_caption_is_lost(tmp_path: Path) -> None:
    run = HttpRun(
        delay=0.02, in_flight=4, requests=24, resized_requests=8, rounds=1, ray_requests=0
    )
    figures = http_figures([], 8, tmp_path, run, lambda _: None)
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
