"""A function over many inputs in several threads, with its results in the inputs' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def in_threads(function: Callable[[A], B], inputs: Iterable[A], threads: int) -> Iterator[B]:
    """Yield function(input) for each input, in order.

    `inputs` is read in the caller's thread, at most one input a thread and one more ahead of what
    was yielded, so memory does not grow with their number. With one thread nothing runs ahead. What
    `function` or `inputs` raises is raised here, at its place in the order.
    """
    if threads <= 1:
        yield from map(function, inputs)
        return
    source = iter(inputs)
    ahead: deque[Future[B]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            ahead.extend(pool.submit(function, some) for some in islice(source, threads + 1))
            while ahead:
                result = ahead.popleft().result()
                ahead.extend(pool.submit(function, some) for some in islice(source, 1))
                yield result
        finally:
            for future in ahead:
                future.cancel()
