"""`List` and `Dict`: containers that threads and processes share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

from .log import Logged, freeze, thaw

__all__ = ["Dict", "List"]

_MISSING: Any = object()


class List(Logged):
    """A list that threads and processes share; used as a `list` is.

    Args:
        items: what is in it at first.
        name: for error messages.

    Each operation is atomic, whoever does what at the same time; for several together there is
    ``with it.locked():``. A process that dies has done an operation, or has not.

    *What it costs* (`benchmarks/share.py`). Each process has a copy in its own memory, so reading
    takes some 0.5 us, whatever the size; a change takes 2 to 4 us in the process that makes it, and
    half of that in each other one, at its next look. Memory is needed in each process that uses it.

    *Nested values.* Numbers, strings and tuples of them come back as they are. A list, dict or any
    other object comes back as a new copy each time, so ``a[0].append(1)`` changes that copy alone;
    use ``update_with``, or put a `List` or `Dict` into it: these are shared as they are.
    """

    def __init__(self, items: Iterable[Any] = (), name: str = "") -> None:
        self._begin(name)
        kept = [freeze(one) for one in items]
        if kept:
            self._change("extend", kept)

    def _empty(self) -> list[Any]:
        return []

    def _apply(self, change: tuple[Any, ...]) -> Any:
        what, *args = change
        return _LIST_CHANGES[what](self._copy, *args)

    # -- reading ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self._read(len))

    def __getitem__(self, index: Any) -> Any:
        kept = self._read(lambda copy: copy[index])
        return [thaw(one) for one in kept] if isinstance(index, slice) else thaw(kept)

    def copy(self) -> list[Any]:
        """An ordinary list of what is in it now."""
        return [thaw(one) for one in self._read(list)]

    def __iter__(self) -> Iterator[Any]:
        """Over what is in it now; later changes are not seen."""
        return map(thaw, self._read(list))

    def __reversed__(self) -> Iterator[Any]:
        return map(thaw, reversed(self._read(list)))

    def __contains__(self, value: object) -> bool:
        return value in self.copy()

    def index(self, value: Any, start: int = 0, stop: int = 2**63 - 1) -> int:
        """Where `value` is first. Raises ValueError: nowhere."""
        return self.copy().index(value, start, stop)

    def count(self, value: Any) -> int:
        """How often it is there."""
        return self.copy().count(value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, List):
            other = other.copy()
        return self.copy() == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Iterable[Any]) -> list[Any]:
        return self.copy() + list(other)

    def __repr__(self) -> str:
        seen = self._glance(list)
        return f"share.List({'...' if seen is None else [thaw(one) for one in seen]})"

    # -- changing --------------------------------------------------------------------------------

    def append(self, value: Any) -> None:
        """Add it at the end. Raises CannotPickle, as all that put something in."""
        self._change("append", freeze(value))

    def extend(self, values: Iterable[Any]) -> None:
        """Add all at the end, in one operation."""
        self._change("extend", [freeze(one) for one in values])

    def __iadd__(self, values: Iterable[Any]) -> Self:
        self.extend(values)
        return self

    def __imul__(self, times: int) -> Self:
        self._decide(lambda copy: ("all", copy * times))
        return self

    def insert(self, index: int, value: Any) -> None:
        """Put it before that index."""
        self._change("insert", index, freeze(value))

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            kept = [freeze(one) for one in value]
            self._change("set", (index.start, index.stop, index.step), kept)
        else:
            self._change("set", index, freeze(value))

    def __delitem__(self, index: Any) -> None:
        if isinstance(index, slice):
            self._change("del", (index.start, index.stop, index.step))
        else:
            self._change("del", index)

    def pop(self, index: int = -1) -> Any:
        """Take out the item there. Raises IndexError."""
        return thaw(self._change("pop", index))

    def pop_if_any(self, index: int = -1, default: Any = None) -> Any:
        """Take out the item there, or return `default` if there is none."""
        found = self._decide(
            lambda copy: ("pop1", index) if -len(copy) <= index < len(copy) else None
        )
        return default if found is None else thaw(found[0])

    def remove(self, value: Any) -> None:
        """Take out the first that equals `value`. Raises ValueError: none does."""
        self._decide(lambda copy: ("del", [thaw(one) for one in copy].index(value)))

    def clear(self) -> None:
        """Take out everything."""
        self._change("all", [])

    def reverse(self) -> None:
        """Turn it round."""
        self._change("reverse")

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        """Sort it, in one operation; others wait meanwhile."""

        def decide(copy: list[Any]) -> tuple[Any, ...]:
            values = [thaw(one) for one in copy]
            keys = values if key is None else [key(one) for one in values]
            order = sorted(range(len(copy)), key=keys.__getitem__, reverse=reverse)
            return "all", [copy[at] for at in order]

        self._decide(decide)

    def update_with(self, index: int, fn: Callable[[Any], Any]) -> Any:
        """Put ``fn(it[index])`` in its place, in one operation; return that.

        `fn` is called while all others wait. What it raises leaves the list as it was.
        """
        made: list[Any] = []

        def decide(copy: list[Any]) -> tuple[Any, ...]:
            made.append(fn(thaw(copy[index])))
            return "set", index, freeze(made[0])

        self._decide(decide)
        return made[0]


def _set(copy: list[Any], index: Any, value: Any) -> None:
    copy[slice(*index) if type(index) is tuple else index] = value


def _del(copy: list[Any], index: Any) -> None:
    del copy[slice(*index) if type(index) is tuple else index]


def _all(copy: list[Any], values: list[Any]) -> None:
    copy[:] = values


_LIST_CHANGES: dict[str, Callable[..., Any]] = {
    "append": list.append,
    "extend": list.extend,
    "insert": list.insert,
    "pop": list.pop,
    "pop1": lambda copy, index: (copy.pop(index),),
    "reverse": list.reverse,
    "set": _set,
    "del": _del,
    "all": _all,
}


class Dict(Logged):
    """A dict that threads and processes share; used as a `dict` is.

    Args:
        items: a mapping, or pairs of keys and values, that are in it at first.
        name: for error messages.

    All that is said of `List` holds: each operation is atomic; what it costs; nested values. Keys,
    values and items come as lists of what is in it now. A key that is no number, string or tuple
    of them travels as its pickle, so it must be equal to itself in another process.
    """

    def __init__(
        self, items: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (), name: str = ""
    ) -> None:
        self._begin(name)
        kept = [(freeze(key), freeze(value)) for key, value in dict(items).items()]
        if kept:
            self._change("update", kept)

    def _empty(self) -> dict[Any, Any]:
        return {}

    def _restore(self, snapshot: Any) -> Any:
        return {thaw(key): value for key, value in snapshot}

    def _kept(self) -> Any:
        return [(freeze(key), value) for key, value in self._copy.items()]

    def _apply(self, change: tuple[Any, ...]) -> Any:
        what, *args = change
        copy = self._copy
        if what == "set":
            copy[thaw(args[0])] = args[1]
        elif what == "pop":
            return (copy.pop(thaw(args[0])),)
        elif what == "update":
            copy.update([(thaw(key), value) for key, value in args[0]])
        else:
            copy.clear()
        return None

    # -- reading ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self._read(len))

    def __getitem__(self, key: Any) -> Any:
        return thaw(self._read(lambda copy: copy[key]))

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        kept = self._read(lambda copy: copy.get(key, _MISSING))
        return default if kept is _MISSING else thaw(kept)

    def __contains__(self, key: object) -> bool:
        return bool(self._read(lambda copy: key in copy))

    def keys(self) -> list[Any]:
        """Its keys, now."""
        found: list[Any] = self._read(list)
        return found

    def values(self) -> list[Any]:
        """Its values, now."""
        return [thaw(one) for one in self._read(lambda copy: list(copy.values()))]

    def items(self) -> list[tuple[Any, Any]]:
        """Its pairs of keys and values, now."""
        return [(key, thaw(one)) for key, one in self._read(lambda copy: list(copy.items()))]

    def copy(self) -> dict[Any, Any]:
        """An ordinary dict of what is in it now."""
        return dict(self.items())

    def __iter__(self) -> Iterator[Any]:
        """Over the keys that are in it now; later changes are not seen."""
        return iter(self.keys())

    def __reversed__(self) -> Iterator[Any]:
        return iter(self.keys()[::-1])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Dict):
            other = other.copy()
        return self.copy() == other if isinstance(other, dict) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Mapping[Any, Any]) -> dict[Any, Any]:
        return {**self.copy(), **other}

    def __repr__(self) -> str:
        seen = self._glance(dict)
        if seen is None:
            return "share.Dict(...)"
        return f"share.Dict({ {key: thaw(value) for key, value in seen.items()} })"

    # -- changing --------------------------------------------------------------------------------

    def __setitem__(self, key: Any, value: Any) -> None:
        hash(key)
        self._change("set", freeze(key), freeze(value))

    def __delitem__(self, key: Any) -> None:
        self.pop(key)

    def pop(self, key: Any, default: Any = _MISSING) -> Any:
        """Take out `key`; return its value, or `default`. Raises KeyError: neither is there."""
        found = self._decide(lambda copy: ("pop", freeze(key)) if key in copy else None)
        if found is not None:
            return thaw(found[0])
        if default is _MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[Any, Any]:
        """Take out the pair that came last. Raises KeyError: there is none."""
        found = self.pop_if_any()
        if found is None:
            raise KeyError("popitem(): the dict is empty")
        return found

    def pop_if_any(self) -> tuple[Any, Any] | None:
        """Take out the pair that came last; None if there is none."""
        which: list[Any] = []

        def decide(copy: dict[Any, Any]) -> tuple[Any, ...] | None:
            for key in reversed(copy):
                which.append(key)
                return "pop", freeze(key)
            return None

        found = self._decide(decide)
        return None if found is None else (which[0], thaw(found[0]))

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The value of `key`, which becomes `default` if it was not there."""
        there: list[Any] = []

        def decide(copy: dict[Any, Any]) -> tuple[Any, ...] | None:
            if key in copy:
                there.append(copy[key])
                return None
            return "set", freeze(key), freeze(default)

        self._decide(decide)
        return thaw(there[0]) if there else default

    def update(
        self, items: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (), /, **more: Any
    ) -> None:
        """Set all these, in one operation."""
        pairs = dict(items, **more)
        self._change("update", [(freeze(key), freeze(value)) for key, value in pairs.items()])

    def __ior__(self, other: Mapping[Any, Any]) -> Self:
        self.update(other)
        return self

    def clear(self) -> None:
        """Take out everything."""
        self._change("clear")

    def update_with(self, key: Any, fn: Callable[[Any], Any], default: Any = _MISSING) -> Any:
        """Set ``it[key]`` to ``fn(it[key])``, in one operation; return that.

        Args:
            fn: called while all others wait. What it raises leaves the dict as it was.
            default: what `fn` gets if the key is not there. Without: KeyError.
        """
        made: list[Any] = []

        def decide(copy: dict[Any, Any]) -> tuple[Any, ...]:
            if key in copy:
                before = thaw(copy[key])
            elif default is _MISSING:
                raise KeyError(key)
            else:
                before = default
            made.append(fn(before))
            return "set", freeze(key), freeze(made[0])

        self._decide(decide)
        return made[0]
