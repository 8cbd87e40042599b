"""What is wrong with a command, and failures as a person and as a program want to read them.

A user's mistake is answered with what was given, what was expected, and at most the frames of
the user's own code: never with a traceback of ours.
"""

from __future__ import annotations

import os
import re
import traceback
from typing import Any

from lightwork import CannotPickle

__all__ = [
    "WrongUse",
    "describe",
    "function_failed",
    "one_line",
    "type_name",
    "user_traceback",
]

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_FRAME = re.compile(r'^( *)File "([^"]*)", line \d+')
_NOT_THEIRS = ("<frozen importlib", "<frozen runpy")
_FACTS = ("pid", "signal", "exitcode", "oom_killed", "peak_memory", "timeout", "limit", "used")


class WrongUse(Exception):
    """The command cannot be carried out as it was given: exit status 2."""


def type_name(error: BaseException) -> str:
    """The full name of an error's type, short for built-in ones; a stand-in's original."""
    original = getattr(error, "type_name", "")
    if isinstance(original, str) and original:
        return original
    kind = type(error)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(getattr(error, "text", "") or error)
    except Exception as trouble:  # a __str__ that raises must not hide the failure
        return f"<its str() raises {type(trouble).__name__}>"


def one_line(error: BaseException) -> str:
    """The error in one line of at most about 200 characters."""
    lines = _text(error).strip().splitlines()
    text = f"{type_name(error)}: {lines[0]}" if lines else type_name(error)
    return text if len(text) <= 200 else text[:197] + "..."


def _formatted(error: BaseException) -> str:
    remote = getattr(error.__cause__, "tb", None)  # of a worker process
    if isinstance(remote, str):
        return remote.strip().strip('"').strip("\n")
    return "".join(traceback.format_exception(error))


def user_traceback(error: BaseException) -> str:
    """The traceback of `error` without the frames of this package and the import system."""
    kept: list[str] = []
    dropping, indent = False, 0
    for line in _formatted(error).splitlines():
        frame = _FRAME.match(line)
        if frame is not None:
            path = frame[2]
            dropping = path.startswith(_NOT_THEIRS) or path.startswith(_HERE) or _importlib(path)
            indent = len(frame[1])
        elif dropping and len(line) - len(line.lstrip()) <= indent:
            dropping = False  # the frame's lines of code are over
        if not dropping and not line.startswith("lightwork: "):
            kept.append(line)
    return "\n".join(kept)


def function_failed(error: BaseException) -> str:
    """What to say when a call has ended in `error`: which call it was, and the user's frames."""
    notes = [note for note in getattr(error, "__notes__", []) if note.startswith("lightwork: ")]
    call = notes[-1].removeprefix("lightwork") if notes else ""
    if isinstance(error, CannotPickle):  # no fault of any line of theirs
        return f"lightwork: the function cannot run in another process{call}\n{_text(error)}"
    return f"lightwork: the function failed{call}\n{user_traceback(error)}"


def _importlib(path: str) -> bool:
    return path.endswith(os.path.join("importlib", "__init__.py"))


def describe(error: BaseException, attempts: int, worker: int | None) -> dict[str, Any]:
    """The error as the value of ``"error"`` in a line of results."""
    facts: dict[str, Any] = {
        "type": type_name(error),
        "message": _text(error),
        "attempts": attempts,
        "worker": worker,
    }
    for name in _FACTS:
        value = getattr(error, name, None)
        if isinstance(value, (int, float, str)):
            facts[name] = value
    facts["traceback"] = user_traceback(error)
    return facts
