import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.children import tied
from recaption.engines.http.address import Server
from recaption.engines.http.engine import HttpEngine
from recaption.engines.protocol import CaptionRequest, Sampling

CAPTIONER = Path(__file__).parents[2] / "pipelines/world/weights/captioner"


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def test_the_command_serves_captions_and_finishes_what_it_took_in_at_sigterm() -> None:
    command = [sys.executable, "-m", "pipelines.cli", "serve-captioner", str(CAPTIONER)]
    options = ["--port", "0", "--max-wait-ms", "300", "--name", "demo"]
    process = subprocess.Popen(
        tied([*command, *options]),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    try:
        assert process.stdout is not None
        name, _, url = process.stdout.readline().strip().partition(" at ")
        engine = HttpEngine(Server(url, name, attempts=1), image_size=0, picture_format="png")
        # A batch waits 300 ms for company, so the signal finds these in the queue.
        request = CaptionRequest([noise(0), noise(1)], ["Describe it."] * 2, [0, 0], Sampling(20))
        timer = threading.Timer(0.15, process.send_signal, (signal.SIGTERM,))
        timer.start()
        outcomes = engine.caption(request)
        assert all(outcome.text for outcome in outcomes)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_an_address_that_is_taken_gets_one_sentence() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "pipelines.cli", "serve-captioner", str(CAPTIONER)]
        done = subprocess.run([*command, "--port", port], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("caplab: Cannot listen on 127.0.0.1")
