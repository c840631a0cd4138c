"""Ray's own HTTP processor on the same requests: `python -m pipelines.bench.ray_http URL BODIES`.

BODIES is a Parquet file with one column `body` of JSON. The server knows how fast it was asked, so
that the start of Ray counts for nothing.
"""

from __future__ import annotations

import json
import sys
from typing import Any

# Rows go through in batches of this size, each of them one request after another.
BATCH = 16


def main(url: str, bodies: str, workers: int) -> None:
    """Send all rows through a processor with `workers` workers.

    Raises:
        AssertionError: a row came back without a caption.
    """
    import pyarrow.parquet as pq
    import ray
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    # Workers wait more than they compute; a CPU each and two for Ray's own tasks, or nothing moves.
    ray.init(
        num_cpus=workers + 2,
        include_dashboard=False,
        logging_level="error",
        configure_logging=False,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    table = pq.read_table(bodies)
    config = HttpRequestProcessorConfig(
        url=f"{url}/chat/completions", batch_size=BATCH, concurrency=workers
    )
    processor = build_processor(config, preprocess=_payload, postprocess=_caption)
    # A block each batch, or one worker would get all of them.
    blocks = [table.slice(start, BATCH) for start in range(0, table.num_rows, BATCH)]
    captions = [row["caption"] for row in processor(ray.data.from_arrow(blocks)).take_all()]
    assert len(captions) == table.num_rows
    assert all(captions)


def _payload(row: dict[str, Any]) -> dict[str, Any]:
    return {"payload": json.loads(row["body"])}


def _caption(row: dict[str, Any]) -> dict[str, Any]:
    return {"caption": row["http_response"]["choices"][0]["message"]["content"]}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
