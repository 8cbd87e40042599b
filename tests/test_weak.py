"""What is known as long as it lives."""

from __future__ import annotations

import gc
import sys
import threading

from lightwork.weak import WeakList


class One:
    pass


def test_in_order_and_only_while_they_live() -> None:
    known: WeakList[One] = WeakList()
    assert not known
    ones = [One() for _ in range(5)]
    for one in ones:
        known.add(one)
    assert known.living() == ones
    assert ones[2] in known
    assert One() not in known
    left = [ones[0], ones[4]]
    del one, ones
    gc.collect()
    assert known.living() == left
    known.clear()
    assert not known
    assert known.living() == []


def test_others_add_and_leave_while_one_looks() -> None:
    known: WeakList[One] = WeakList()
    stays = One()
    known.add(stays)
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            for one in [One() for _ in range(5)]:
                known.add(one)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for _ in range(2000):
            assert known.living()[0] is stays
    finally:
        done.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)
    gc.collect()
    assert known.living() == [stays]
