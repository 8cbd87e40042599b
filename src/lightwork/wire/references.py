"""Whether a function or class can be found by its name in another process.

What can be is sent as a name; what cannot is sent by value (`byvalue`). "Can be found" means: the
module is not the main script, importing it works elsewhere, and the name leads to this very object.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["MAIN_MODULES", "by_name", "importable"]

# The second is what multiprocessing calls the main script in its own children.
MAIN_MODULES = frozenset({"__main__", "__mp_main__"})

in_worker = False
"""Whether this process is a worker, so that modules it was forked with are not its own."""

# Module name -> (the module it was found out for, the verdict).
_verdicts: dict[str, tuple[ModuleType | None, bool]] = {}
_UNKNOWN: tuple[ModuleType | None, bool] = (ModuleType(""), False)


def by_name(obj: Any) -> bool:
    """Return whether `obj`, a function or a class, can be sent as ``module`` and ``qualname``."""
    try:
        module_name = obj.__module__
        module = sys.modules[module_name]
        qualname = obj.__qualname__
        if module.__dict__.get(qualname) is not obj:
            found: Any = module
            for part in qualname.split("."):
                found = getattr(found, part)
            if found is not obj:
                return False
        known = _verdicts.get(module_name, _UNKNOWN)
        return known[1] if known[0] is module else importable(module_name)
    except Exception:
        # No such module or name ("<locals>"), or an attribute that is a property which raises.
        # A builtin without a module is pickle's own affair.
        return getattr(obj, "__module__", None) is None and not hasattr(obj, "__code__")


def importable(module_name: str) -> bool:
    """Return whether another process with our ``sys.path`` can import this module of ours.

    Only the top-level package is looked for. Extension modules register submodules that no finder
    knows of, and these come to life with their parent.
    """
    module = sys.modules.get(module_name)
    known = _verdicts.get(module_name, _UNKNOWN)
    if known[0] is module:
        return known[1]
    top = module_name.partition(".")[0]
    verdict = _find(top, sys.modules.get(top))
    _verdicts[module_name] = (module, verdict)
    return verdict


def _find(name: str, module: ModuleType | None) -> bool:
    if name in MAIN_MODULES:
        return False
    if name in sys.builtin_module_names or name in sys.stdlib_module_names:
        return True
    for finder in sys.meta_path:
        try:
            found = finder.find_spec(name, None)
        except Exception:
            # A finder that fails (or predates find_spec) says nothing.
            continue
        if found is not None:
            return _same(found, getattr(module, "__spec__", None))
    return False


def _same(found: ModuleSpec, own: ModuleSpec | None) -> bool:
    """Whether an import elsewhere would give the module that we have."""
    if own is None or not own.origin or not found.origin:
        # Replaced itself in sys.modules, or a namespace package: the name is all there is.
        return True
    return own.origin == found.origin
