"""The probe on calls of known kinds; what it says of them, and that it leaves results alone.

Shares are compared with wide margins, and what is not within them is measured anew: on a busy
machine the heart may be sent off its core with the GIL in its hand, and the call stands still.
"""

from __future__ import annotations

import gc
import hashlib
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from lightwork.measure.gil import has_gil
from lightwork.measure.model import Figures
from lightwork.measure.probe import Heart, Packing, Probe, packing, watch
from lightwork.measure.threadclock import ThreadClock


def spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def assert_measured(call: Callable[[], object], *, as_: Callable[[Figures], bool]) -> None:
    found = []
    for _ in range(20):
        probe = Probe()
        watch(call, probe)
        found.append(probe.figures())
        if as_(found[-1]):
            return
    raise AssertionError(f"never as expected: {found}")


def test_waiting() -> None:
    assert_measured(
        lambda: time.sleep(0.05),
        as_=lambda found: found.gil <= found.cpu < 0.3 and found.wall >= 0.045,
    )


@pytest.mark.skipif(not has_gil(), reason="there is none")
def test_computing_in_python_holds_the_gil() -> None:
    assert_measured(lambda: spin(0.1), as_=lambda found: found.cpu > 0.5 and found.gil > 0.5)


def test_half_and_half() -> None:
    def both() -> None:
        spin(0.05)
        time.sleep(0.05)

    assert_measured(both, as_=lambda found: 0.2 < found.cpu < 0.8)


def test_c_code_that_lets_go_of_the_gil() -> None:
    data = bytes(80_000_000)
    assert_measured(
        lambda: hashlib.sha256(data).digest(), as_=lambda found: found.gil < 0.5 * found.cpu
    )


def test_figures_of_a_call_that_still_runs() -> None:
    """What a minute's call does is known long before it ends."""
    go, probe = threading.Event(), Probe()
    clear = threading.Event()
    heart = Heart(lambda: clear.set() if probe.clear() else None, lambda: not go.is_set())
    heart.probes[probe] = None

    def wait() -> None:
        probe.begin()
        go.wait(60)
        probe.end()

    thread = threading.Thread(target=wait)
    thread.start()
    heart.start()
    beating = heart.thread
    assert clear.wait(30)
    found = probe.figures()
    assert found.calls == 0
    assert found.cpu < 0.3
    go.set()
    heart.hurry()
    thread.join()
    assert beating is not None
    beating.join()
    assert probe.figures().calls == 1


def test_one_call_is_measured_at_a_time() -> None:
    probe = Probe()
    assert probe.begin()
    assert not probe.begin()
    probe.end()
    assert probe.begin()
    probe.end()
    assert probe.figures().calls == 2


def test_results_and_errors_pass_through() -> None:
    thing = object()
    assert watch(lambda: thing, Probe()) is thing
    probe = Probe()
    with pytest.raises(ZeroDivisionError):
        watch(lambda: 1 / 0, probe)
    assert probe.calls == 1


def test_the_users_random_numbers_are_left_alone() -> None:
    random.seed(3)
    expected = [random.random() for _ in range(5)]
    random.seed(3)
    found = watch(lambda: [random.random() for _ in range(5)], Probe())
    watch(lambda: time.sleep(0.01), Probe())
    assert found == expected
    random.seed(3)
    watch(lambda: time.sleep(0.01), Probe())
    assert [random.random() for _ in range(5)] == expected


def test_a_thread_that_has_ended_can_still_be_asked() -> None:
    clocks: list[ThreadClock] = []
    thread = threading.Thread(target=lambda: clocks.append(ThreadClock()))
    thread.start()
    thread.join()
    clock = clocks.pop()
    assert clock.waited() >= 0
    clock.close()
    clock.close()
    assert clock.waited() == 0
    del clock
    gc.collect()


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not me")


def test_packing_counts_bytes() -> None:
    assert packing(b"x" * 1000, "it", 1.0).bytes == pytest.approx(1000, rel=0.1)
    numpy = pytest.importorskip("numpy")
    assert packing(numpy.zeros(100_000), "it", 1.0).bytes >= 800_000


def test_packing_gives_up_in_time() -> None:
    """What takes long is not packed to the end; it is taken to be several times as long."""
    big = [str(n) for n in range(2_000_000)]
    found = packing(big, "it", 1e-3)
    assert 1e-3 <= found.seconds < 0.1
    assert not found.error


def test_packing_tells_why_not() -> None:
    found = packing([1, Unpicklable()], "the argument", 1.0)
    assert isinstance(found, Packing)
    assert "not me" in found.error
    assert "the argument" in found.error


def test_packing_goes_by_value_where_it_must() -> None:
    assert not packing(lambda n: n + 1, "it", 1.0).error
