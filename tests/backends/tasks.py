"""What the workers of the tests run. Imported by name, here and there."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from typing import Any, NoReturn

from lightwork.backends.processes import worker

STATE: dict[str, Any] = {}
SHARED: list[int] = []


def square(x: int) -> int:
    return x * x


def add(a: int, b: int) -> int:
    return a + b


def echo(x: Any) -> Any:
    return x


def size_of(x: Any) -> int:
    return len(x)


def keywords(**names: Any) -> dict[str, Any]:
    return names


def grow(x: int) -> list[int]:
    """Returns the same list again and again: what is answered must be what it was then."""
    SHARED.append(x)
    return SHARED


def fail(x: Any) -> NoReturn:
    raise ValueError(x)


def fail_on_odd(x: int) -> int:
    if x % 2:
        raise ValueError(x)
    return x


def exit_with(code: Any) -> NoReturn:
    sys.exit(code)


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def pid() -> int:
    return os.getpid()


def note(path: str, number: int, seconds: float = 0.0) -> int:
    """Append a number to a file: in one write, so that nothing is torn, whoever else does."""
    with open(path, "ab", buffering=0) as file:
        file.write(b"%d\n" % number)
    if seconds:
        time.sleep(seconds)
    return number


def noted(path: str) -> list[int]:
    with open(path, "rb") as file:
        return [int(line) for line in file.read().split()]


def hold_until(path: str) -> str:
    """Wait until a file is there."""
    while not os.path.exists(path):
        time.sleep(0.002)
    return path


def exit_process(code: int) -> NoReturn:
    os._exit(code)


def die_of(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(10)


def segfault() -> None:
    faulthandler._sigsegv()  # type: ignore[attr-defined]


def die_on(x: int, bad: int, code: int = 3) -> int:
    if x == bad:
        os._exit(code)
    return x


def slow_die_on(x: int, bad: int) -> int:
    time.sleep(0.0001)
    return die_on(x, bad)


def unpicklable() -> Any:
    return lambda: open(os.devnull)


def lock() -> Any:
    import threading

    return threading.Lock()


class ExitAtUnpickle:
    """Ends whatever process rebuilds it, but for the one it was made in."""

    def __init__(self) -> None:
        self.home = os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        if os.getpid() != state["home"]:
            os._exit(4)


class ExitAtPickle:
    def __reduce__(self) -> Any:
        os._exit(5)


class ExitInDel:
    """Ends a process other than the one it was made in when it is dropped."""

    def __init__(self) -> None:
        self.home = os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.home:
            os._exit(6)


class ExitInDelHere:
    """A result whose last reference ends the worker."""

    def __reduce__(self) -> Any:
        return str, ("packed",)

    def __del__(self) -> None:
        os._exit(7)


class RaiseAtUnpickle:
    """Cannot be rebuilt anywhere."""

    def __reduce__(self) -> Any:
        return fail, ("no such thing",)


def make(name: str) -> Any:
    return globals()[name]()


def interrupt_at_unpickle() -> Any:
    return InterruptAtUnpickle()


class InterruptAtUnpickle:
    def __reduce__(self) -> Any:
        return interrupt, ()


def where() -> Any:
    return worker.where()


def remember(name: str, value: Any) -> None:
    STATE[name] = value


def recall(name: str) -> Any:
    return STATE.get(name)


def forked_child_returns() -> int:
    """Fork, and come back from the call in both processes."""
    child = os.fork()
    if child == 0:
        return -1
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def forked_child_exits(code: int) -> int:
    child = os.fork()
    if child == 0:
        sys.exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def fork_and_leave(seconds: float) -> int:
    """Leave a child behind that lives on."""
    child = os.fork()
    if child == 0:
        os.setsid()
        time.sleep(seconds)
        os._exit(0)
    return child


def fork_and_die(seconds: float) -> None:
    fork_and_leave(seconds)
    os._exit(9)


def close_descriptors() -> None:
    os.closerange(3, 100)


def allocate(megabytes: int, seconds: float = 0.0) -> int:
    block = bytearray(megabytes << 20)
    for at in range(0, len(block), 4096):
        block[at] = 1
    time.sleep(seconds)
    return len(block)


def keep_allocated(megabytes: int) -> int:
    STATE["kept"] = b"x" * (megabytes << 20)
    return os.getpid()


def recurse() -> int:
    return 1 + recurse()


def spoken(text: str) -> None:
    print(text)


def zeros(count: int, value: int = 0) -> Any:
    import numpy

    return numpy.full(count, value, dtype=numpy.uint8)


def total(array: Any) -> int:
    result = int(array.sum())
    array[0] = 77  # it must be writable, and ours alone
    return result


def keep_array(array: Any) -> int:
    STATE["array"] = array
    return int(array[0])


def keep_two(a: int, b: Any) -> int:
    return a + 2


def call_named(name: str) -> Any:
    fn = globals()[name]
    return fn()


def size_of_first(data: bytes, number: int) -> int:
    return len(data)


def where_of(x: Any) -> Any:
    return worker.where()


def blob(size: int) -> bytes:
    return bytes(size)


def size_of_nothing(x: Any) -> int:
    return 0


def no_room() -> None:
    from lightwork.wire.segments import Arena

    def full(self: Any, buffers: Any) -> Any:
        raise OSError(28, "No space left on device")

    Arena.write = full  # type: ignore[method-assign]


def exhaust_descriptors() -> None:
    import resource

    STATE["limit"] = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 5, STATE["limit"][1]))
    opened = []
    try:
        while True:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        STATE["opened"] = opened


def give_descriptors_back() -> None:
    import resource

    for fd in STATE.pop("opened"):
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, STATE["limit"])


def held_until(what: tuple[str, int]) -> int:
    """Give the number back; with a path, when a file is there."""
    path, number = what
    if path:
        hold_until(path)
    return number


def busy(seconds: float) -> int:
    """Use a core for so long."""
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        pass
    return 1
