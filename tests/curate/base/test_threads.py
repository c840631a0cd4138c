import threading

import pytest

from curate.base.threads import in_threads


def test_results_come_in_the_order_of_the_inputs() -> None:
    first = threading.Event()

    def slow_first(number: int) -> int:
        if number == 0:
            assert first.wait(10)
        elif number == 1:
            first.set()
        return number * 10

    assert list(in_threads(slow_first, range(5), 2)) == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("threads", [1, 3])
def test_inputs_are_read_only_a_little_ahead(threads: int) -> None:
    read = []

    def inputs():
        for number in range(100):
            read.append(number)
            yield number

    results = in_threads(str, inputs(), threads)
    assert next(results) == "0"
    assert len(read) <= threads + 2
    assert len(list(results)) == 99


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_is_raised_where_it_belongs(threads: int) -> None:
    results = in_threads(lambda number: 1 // number, [2, 1, 0, 1], threads)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
