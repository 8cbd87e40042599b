"""What the tests let workers run; importable there by name, as ``tests.contract.functions``."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

PATIENCE = 30.0
"""Seconds after which a gate that nobody opens gives up: long before the test's own time-out."""


def mul(x: int, y: int) -> int:
    return x * y


def square(x: int) -> int:
    return x * x


def capture(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def identity(value: Any) -> Any:
    return value


def pid(_: Any = None) -> int:
    return os.getpid()


def sleep_pid(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def fail(text: str = "sabotage") -> NoReturn:
    raise ValueError(text)


def fail_if_odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


def die(how: int = signal.SIGKILL) -> NoReturn:
    os.kill(os.getpid(), how)
    raise AssertionError("still alive")


def die_if_odd(x: int) -> int:
    if x % 2:
        die()
    return x


def note(path: Path | str, text: object) -> None:
    """Append a line in one write, which O_APPEND keeps whole among many writers."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)


def notes(path: Path | str) -> list[str]:
    return Path(path).read_text().splitlines() if os.path.exists(path) else []


def noted(path: str, value: Any) -> Any:
    """Note that this call ran, and return its value."""
    note(path, value)
    return value


def pass_gate(gate: str, value: Any = None) -> Any:
    """Return `value` once the file `gate` exists."""
    end = time.monotonic() + PATIENCE
    while not os.path.exists(gate):
        if time.monotonic() > end:
            raise AssertionError(f"nobody opened {gate}")
        time.sleep(0.002)
    return value


def start_and_pass_gate(started: str, gate: str, value: Any = None) -> Any:
    note(started, value)
    return pass_gate(gate, value)


def fail_first(path: str, times: int, value: Any = None) -> Any:
    """Fail with OSError in the first `times` runs, counted in the file."""
    note(path, time.monotonic())
    if len(notes(path)) <= times:
        raise OSError(f"run {len(notes(path))} fails")
    return value


def die_first(path: str, times: int, value: Any = None) -> Any:
    """Kill the worker in the first `times` runs, counted in the file."""
    note(path, os.getpid())
    if len(notes(path)) <= times:
        die()
    return value


def hang_first(path: str, times: int, value: Any = None) -> Any:
    """Take a minute in the first `times` runs, counted in the file."""
    note(path, os.getpid())
    if len(notes(path)) <= times:
        time.sleep(60)
    return value


def where(_: Any = None) -> tuple[int, int, int]:
    from lightwork import current_task

    task = current_task()
    return task.index, task.attempt, task.worker


def draw(_: Any = None) -> float:
    from lightwork import current_task

    rng: random.Random = current_task().rng
    return rng.random() + rng.random()


def draw_numpy(_: Any = None) -> float:
    from lightwork import current_task

    return float(current_task().numpy_rng.random())


STATE: list[Any] = []


def remember(*values: Any) -> None:
    """An initializer."""
    STATE.extend(values)


def remembered(_: Any = None) -> list[Any]:
    return list(STATE)


class Unpicklable:
    """Cannot travel."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("this never travels")


class Awkward(Exception):
    """Cannot be rebuilt the way that pickle rebuilds exceptions."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"code {code}: {reason}")
        self.code = code
        self.reason = reason


def raise_awkward(code: int) -> NoReturn:
    raise Awkward(code, reason="awkward")


class Account:
    """Has methods to send."""

    def __init__(self, total: int) -> None:
        self.total = total

    def plus(self, x: int) -> int:
        return self.total + x

    def __call__(self, x: int) -> int:
        return self.total * x


def square_or_pass_gate(n: int, started: str, path: str) -> int:
    """Square a number; with a gate, say that it has started, and wait there first."""
    if path:
        start_and_pass_gate(started, path)
    return n * n


def fail_at_first(folder: str, n: int, every: int) -> int:
    """Raise the first time that it is called for each `every`-th number."""
    if n % every == 0:
        seen = os.path.join(folder, f"seen-{n}")
        if not os.path.exists(seen):
            open(seen, "x").close()
            raise ValueError(n)
    return n


def crash_or_hang(n: int, crash: int, hang: int) -> int:
    """End the process for one number, take for ever for another."""
    if n == crash:
        os.kill(os.getpid(), 9)
    if n == hang:
        time.sleep(60)
    return n


def pass_gate_if_given(what: tuple[str, int]) -> int:
    """Give the number back, not at once; with a gate, when it is open."""
    path, number = what
    if path:
        pass_gate(path)
    time.sleep(2e-4)
    return number
