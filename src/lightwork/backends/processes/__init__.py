"""Worker processes: starting them, talking to them, knowing how they ended.

The fork server and the workers import this package too, so it loads nothing by itself.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ProcessBackend"]


def __getattr__(name: str) -> Any:
    if name == "ProcessBackend":
        from .backend import ProcessBackend

        return ProcessBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
