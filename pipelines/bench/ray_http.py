"""Ray's own HTTP processor on the same requests: `python -m pipelines.bench.ray_http URL BODIES`.

BODIES is a Parquet file with one column `body` of JSON. Prints one JSON object: the seconds of two
runs, over all rows and over a quarter of them, whose difference leaves the start of Ray out.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

# Rows go through in batches of this size, each of them one request after another.
BATCH = 16


def main(url: str, bodies: str, workers: int) -> None:
    """Run both and print."""
    import pyarrow.parquet as pq
    import ray
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    ray.init(include_dashboard=False, logging_level="error", configure_logging=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    table = pq.read_table(bodies)
    config = HttpRequestProcessorConfig(
        url=f"{url}/chat/completions", batch_size=BATCH, concurrency=workers
    )
    processor = build_processor(config, preprocess=_payload, postprocess=_caption)
    seconds = {}
    for count in (table.num_rows // 4, table.num_rows):
        rows = ray.data.from_arrow(table.slice(0, count))
        started = time.perf_counter()
        captions = [row["caption"] for row in processor(rows).take_all()]
        seconds[count] = time.perf_counter() - started
        assert len(captions) == count
        assert all(captions)
    print(json.dumps(seconds))


def _payload(row: dict[str, Any]) -> dict[str, Any]:
    return {"payload": json.loads(row["body"])}


def _caption(row: dict[str, Any]) -> dict[str, Any]:
    return {"caption": row["http_response"]["choices"][0]["message"]["content"]}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
