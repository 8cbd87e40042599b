"""What the workers of these tests run."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from typing import Any

log = logging.getLogger("tests.tasks")


class Special(Exception):
    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{why} ({code})")
        self.code = code


class OurWarning(UserWarning):
    pass


class NoPickle:
    def __reduce__(self) -> Any:
        raise TypeError("never")

    def __repr__(self) -> str:
        return "<NoPickle>"


def say(x: Any) -> Any:
    log.debug("debug %s", x)
    log.info("info %s", x, extra={"color": ("red", x), "odd": NoPickle()})
    log.warning("warning %(x)s", {"x": x})
    logging.getLogger("tests.tasks.other").error("error %s %s", x, NoPickle())
    return x


def fail(x: int) -> None:
    try:
        raise Special(x, "for a reason")
    except Special:
        log.exception("caught", stack_info=True)


def many(count: int) -> int:
    for n in range(count):
        log.info("number %d", n)
    return count


def many_and_die(count: int) -> None:
    many(count)
    os._exit(3)


def long_text(size: int) -> None:
    log.info("x" * size)


def warn(x: int) -> int:
    warnings.warn(f"careful {x % 2}", OurWarning, stacklevel=1)
    return x


def show(x: int) -> int:
    print("line", x)
    print("two\nlines", x, file=sys.stderr)
    return x


def show_half(x: int) -> int:
    print("begun", end=" ")
    print("no end", x, end="")
    return x


def fork_and_log(x: int) -> int:
    child = os.fork()
    if not child:
        log.warning("from a child %s", x)
        os._exit(0)
    os.waitpid(child, 0)
    log.warning("from the worker %s", x)
    return x


def log_from(number: int) -> None:
    for n in range(50):
        log.info("t%d %d %s", number, n, "y" * 3000)


def threads_log(x: int) -> None:
    threads = [threading.Thread(target=log_from, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def own_handlers() -> None:
    logging.basicConfig(level=logging.DEBUG, force=True, filename=os.devnull)


def own_queue() -> None:
    import logging.handlers
    import queue

    logging.getLogger().addHandler(logging.handlers.QueueHandler(queue.SimpleQueue()))


def impatient() -> None:
    from lightwork.observe import sending

    sending.PATIENCE = 0.05


def fail_at_seven(x: int) -> int:
    if x == 7:
        raise ValueError(x)
    return x


def nap(seconds: float) -> float:
    threading.Event().wait(seconds)
    return seconds


release = threading.Event()


def hold(seconds: float) -> float:
    release.wait(seconds)
    return seconds


def die_once(path: str) -> str:
    if not os.path.exists(path):
        open(path, "w").close()
        os._exit(7)
    return path
