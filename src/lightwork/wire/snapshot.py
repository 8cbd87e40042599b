"""What a thing that is sent by value depends on, so that its bytes may be used again.

Pickling a function by value takes 50 to 100 µs and more, so that it should be done once for many
tasks. But the function must be sent as it is *now*: with the globals, closure and defaults that it
would see if it were called here. So its bytes are used again only if all it refers to, and all that
this refers to, is immutable or is itself watched; and each time it is checked by identity that
everything is still in its place. Anything mutable on the way, and there is no snapshot.
"""

from __future__ import annotations

import enum
import functools
import sys
import types
from collections.abc import Callable
from operator import is_
from typing import Any

from .references import by_name, importable

__all__ = ["Snapshot", "code_names", "take"]

_ABSENT = object()

_IMMUTABLE: frozenset[type] = frozenset(
    {
        *(bool, bytes, complex, float, int, range, str),
        *(type(None), type(Ellipsis), type(NotImplemented)),
        # What a class's dictionary is full of. They belong to their class and cannot change.
        *(types.GetSetDescriptorType, types.MemberDescriptorType, types.MethodDescriptorType),
        *(types.WrapperDescriptorType, types.ClassMethodDescriptorType, types.GenericAlias),
    }
)

# The same, by name: to import them all for this would cost more than it saves.
_IMMUTABLE_NAMES = {
    "_collections": {"_tuplegetter"},
    "collections": {"_tuplegetter"},
    "dataclasses": {"_HAS_DEFAULT_FACTORY_CLASS", "_MISSING_TYPE"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "numpy": {"ufunc"},
    "pathlib": {"PosixPath", "PurePosixPath"},
    "pathlib._local": {"PosixPath", "PurePosixPath"},  # since Python 3.13
    "re": {"Pattern"},
    "uuid": {"UUID"},
}

# Entries of a class's dictionary that are made with the class, and then left alone.
_CLASS_NOISE = frozenset(
    {
        *("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__slots__"),
        *("__annotations__", "__annotate__", "__annotate_func__", "__parameters__"),
        *("__orig_bases__", "__static_attributes__", "__firstlineno__", "__match_args__"),
        *("__dataclass_fields__", "__dataclass_params__", "_abc_impl", "__abstractmethods__"),
        "__slotnames__",  # put there by copyreg
        *("_fields", "_field_defaults"),
        *("__protocol_attrs__", "__non_callable_proto_members__"),
    }
)

# A snapshot keeps alive what it watches. That is nothing that anybody misses (no object of the
# user's that could hold resources is immutable in the sense of this file), as long as it is small.
_TOO_MANY = 1000  # things, or elements of a tuple
_TOO_BIG = 4096  # characters or bytes


CO_OPTIMIZED = 1  # inspect's; a function's code, not the body of a class
_GLOBAL_OPS = frozenset({"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"})


@functools.lru_cache(maxsize=1024)  # by equality of code objects: of what they do
def code_names(code: types.CodeType) -> frozenset[str]:
    """Return the names that `code`, or code inside it, may look up as globals."""
    import dis  # late: workers have no use for it

    if not code.co_flags & CO_OPTIMIZED:
        # The body of a class looks up its names in several places, by many opcodes.
        names = set(code.co_names)
    else:
        names = {i.argval for i in dis.get_instructions(code) if i.opname in _GLOBAL_OPS}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= code_names(constant)
    return frozenset(names)


class Snapshot:
    """What was found, and the check that it is still so.

    Attributes:
        modules: names of the importable modules that it refers to.
    """

    __slots__ = ("_cells", "_classes", "_dicts", "_functions", "_seen", "_sizes", "modules")

    def __init__(self) -> None:
        self.modules: dict[str, None] = {}
        self._dicts: list[tuple[dict[str, Any], str, Any]] = []
        self._sizes: list[tuple[dict[str, Any], int]] = []
        self._cells: list[tuple[types.CellType, Any]] = []
        self._functions: list[tuple[types.FunctionType, tuple[Any, ...]]] = []
        self._classes: list[tuple[type, tuple[Any, ...]]] = []
        self._seen: dict[int, Any] = {}

    def holds(self) -> bool:
        """Return whether everything is where it was. About 0.1 µs for each thing."""
        try:
            return self._holds()
        except RuntimeError:  # a dictionary changed size: another thread is at it
            return False

    def _holds(self) -> bool:
        for names, name, value in self._dicts:
            if names.get(name, _ABSENT) is not value:
                return False
        for names, size in self._sizes:
            if len(names) != size:
                return False
        for function, kept in self._functions:
            if not all(map(is_, _parts(function), kept)):
                return False
        for cell, value in self._cells:
            if _contents(cell) is not value:
                return False
        for cls, values in self._classes:
            now = tuple(cls.__dict__.values())
            if len(now) != len(values) or not all(map(is_, now, values)):
                return False
        return True

    def add(self, value: Any) -> bool:
        """Watch `value` and all it refers to; False if something in it may change unseen."""
        kind = type(value)
        if kind in _IMMUTABLE:
            return (kind is not str and kind is not bytes) or len(value) <= _TOO_BIG
        if id(value) in self._seen:
            return True
        if len(self._seen) > _TOO_MANY:
            return False
        self._seen[id(value)] = value  # keeps it alive too, so that its id stays its own
        if kind is tuple or kind is frozenset:
            return len(value) <= _TOO_MANY and all(map(self.add, value))
        look = _LOOK.get(kind)
        if look is not None:
            return look(self, value)
        if issubclass(kind, type):
            return self._add_class(value)
        if issubclass(kind, enum.Enum):
            return self.add(kind)
        if kind.__module__ == "typing":
            return True
        return kind.__qualname__ in _IMMUTABLE_NAMES.get(kind.__module__, ())

    def _add_module(self, module: types.ModuleType) -> bool:
        self.modules[module.__name__] = None
        return module is sys.modules.get(module.__name__) and importable(module.__name__)

    def _add_function(self, function: types.FunctionType) -> bool:
        if by_name(function):
            self.modules[function.__module__] = None
            return True
        parts = _parts(function)
        self._functions.append((function, parts))
        globals_ = function.__globals__
        for name in code_names(function.__code__):
            value = globals_.get(name, _ABSENT)
            self._dicts.append((globals_, name, value))
            if value is not _ABSENT and not self.add(value):
                return False
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            value = _contents(cell)
            self._cells.append((cell, value))
            if name == "repr_running" and type(value) is set:
                continue  # of reprlib.recursive_repr, which every dataclass has: scratch space
            if value is not _ABSENT and not self.add(value):
                return False
        return (
            self.add(function.__defaults__ or ())
            and self._add_dict(function.__kwdefaults__ or {})
            and self._add_dict(function.__dict__)
        )

    def _add_dict(self, names: dict[str, Any]) -> bool:
        self._sizes.append((names, len(names)))
        for name, value in names.items():
            self._dicts.append((names, name, value))
            if not self.add(value):
                return False
        return True

    def _add_builtin(self, function: types.BuiltinFunctionType) -> bool:
        # A bound method of an object (list.append) is another matter.
        owner = function.__self__
        if owner is None or isinstance(owner, types.ModuleType):
            return True
        return isinstance(owner, type) and self.add(owner)  # tuple.__new__

    def _add_partial(self, partial: functools.partial[Any]) -> bool:
        return (
            self.add(partial.func) and self.add(partial.args) and self._add_dict(partial.keywords)
        )

    def _add_wrapper(self, wrapper: Any) -> bool:
        return self.add(wrapper.__func__)  # staticmethod, classmethod

    def _add_cached(self, cached: Any) -> bool:
        return self.add(cached.__wrapped__)  # the cache itself is not sent

    def _add_cached_property(self, value: functools.cached_property[Any]) -> bool:
        return self.add(value.func)

    def _add_property(self, value: property) -> bool:
        return self.add(value.fget) and self.add(value.fset) and self.add(value.fdel)

    def _add_class(self, cls: type) -> bool:
        if by_name(cls):
            self.modules[cls.__module__] = None
            return True
        self._classes.append((cls, tuple(cls.__dict__.values())))
        if not (self.add(type(cls)) and all(map(self.add, cls.__bases__))):
            return False
        if issubclass(cls, enum.Enum):
            return self._add_enum(cls)
        return all(
            self.add(value) for name, value in cls.__dict__.items() if name not in _CLASS_NOISE
        )

    def _add_enum(self, cls: type[enum.Enum]) -> bool:
        for member in cls:
            self._seen[id(member)] = member
        return all(self.add(member.value) for member in cls) and all(
            self.add(value)
            for name, value in cls.__dict__.items()
            if isinstance(value, (types.FunctionType, staticmethod, classmethod))
        )


def _parts(function: types.FunctionType) -> tuple[Any, ...]:
    """What a function is made of, besides what its cells and dictionaries hold."""
    return function.__code__, function.__defaults__, function.__kwdefaults__


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty as yet
        return _ABSENT


_LOOK: dict[type, Callable[[Snapshot, Any], bool]] = {
    types.ModuleType: Snapshot._add_module,
    types.FunctionType: Snapshot._add_function,
    types.BuiltinFunctionType: Snapshot._add_builtin,
    functools.partial: Snapshot._add_partial,
    functools._lru_cache_wrapper: Snapshot._add_cached,
    functools.cached_property: Snapshot._add_cached_property,
    staticmethod: Snapshot._add_wrapper,
    classmethod: Snapshot._add_wrapper,
    property: Snapshot._add_property,
}


def take(obj: Any) -> Snapshot | None:
    """Return a snapshot of `obj` and all it refers to, or None if there can be none."""
    snapshot = Snapshot()
    try:
        return snapshot if snapshot.add(obj) else None
    except Exception:
        # A descriptor or metaclass of the user's that raises, or nesting without end.
        return None
