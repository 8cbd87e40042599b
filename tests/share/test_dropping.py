"""What is dropped is let go of, though the process never uses the commons again."""

from __future__ import annotations

import fcntl
import os
import threading
import time

from lightwork import share


def held_elsewhere(fd: int, seconds: float) -> threading.Thread:
    """Have another open file hold the administrative lock, as another process does."""
    there = threading.Event()

    def hold() -> None:
        other = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(other, fcntl.LOCK_EX)
            there.set()
            time.sleep(seconds)
        finally:
            os.close(other)

    thread = threading.Thread(target=hold)
    thread.start()
    assert there.wait(20)
    return thread


def test_while_another_process_has_the_lock() -> None:
    stays, goes = share.Event(), share.Event()
    commons, index = stays._block.commons, goes._block.index
    assert commons.marks[index]
    thread = held_elsewhere(commons.fd, 0.01)
    del goes
    thread.join()
    assert not commons.dropped
    assert not commons.marks[index]


def test_the_lock_is_held_for_long() -> None:
    """As by a process that was stopped: a finalizer does not wait for it for ever."""
    stays, goes = share.Event(), share.Event()
    commons, index = stays._block.commons, goes._block.index
    thread = held_elsewhere(commons.fd, 1.0)
    del goes
    assert thread.is_alive()
    thread.join()
    stays.set()
    with commons:
        pass
    assert not commons.dropped
    assert not commons.marks[index]


def test_in_the_thread_that_has_the_lock() -> None:
    stays, goes = share.Event(), share.Event()
    commons, index = stays._block.commons, goes._block.index
    with commons:
        del goes
        assert commons.marks[index]
    assert not commons.dropped
    assert not commons.marks[index]


def test_while_a_thread_of_ours_has_the_lock() -> None:
    stays, goes = share.Event(), share.Event()
    commons, index = stays._block.commons, goes._block.index
    there, go = threading.Event(), threading.Event()

    def hold() -> None:
        with commons:
            there.set()
            go.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert there.wait(20)
    del goes  # in vain, for as long as it is patient
    go.set()
    thread.join()
    assert not commons.dropped
    assert not commons.marks[index]
