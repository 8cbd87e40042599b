"""Objects that are known as long as they live, to all threads."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

__all__ = ["WeakList"]

T = TypeVar("T")


class WeakList(Generic[T]):
    """Objects in the order in which they came; it keeps none of them alive.

    Unlike a `weakref.WeakSet`, which raises RuntimeError when a thread adds something while another
    one iterates, it can be asked for what it has at any time.
    """

    __slots__ = ("__weakref__", "_references")

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[T]] = {}

    def add(self, one: T) -> None:
        """Know it from now on; it must not be known yet."""
        references, key = self._references, id(one)

        def forget(_: object) -> None:
            references.pop(key, None)

        references[key] = weakref.ref(one, forget)

    def living(self) -> list[T]:
        """Those that live."""
        # `list` of a dictionary's values runs nobody's code: no other thread comes between.
        found = [reference() for reference in list(self._references.values())]
        return [one for one in found if one is not None]

    def clear(self) -> None:
        """Know none any more."""
        self._references.clear()

    def __contains__(self, one: object) -> bool:
        found = self._references.get(id(one))
        return found is not None and found() is one

    def __bool__(self) -> bool:
        return bool(self._references)
