"""TARGET: from ``module:function`` or ``path/file.py:function`` to the function.

A file is imported as a module under its own name, with its folder (or, for a file of a package,
the folder that holds the package) first on ``sys.path``. Worker processes get the same path,
so they import the function by the same name.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .problem import WrongUse, user_traceback

__all__ = ["load"]


def load(target: str) -> Callable[..., Any]:
    """Return the function that `target` names. Raises WrongUse, whatever is wrong with it."""
    where, _, what = target.rpartition(":")
    if not where or not what:
        raise WrongUse(
            f"TARGET must be module:function or path/file.py:function, not {target!r}"
            + _suggest_colon(target)
        )
    if where.endswith(".py") or os.sep in where:
        module = _from_file(where)
    else:
        if (here := os.getcwd()) not in sys.path:
            sys.path.insert(0, here)
        module = _import(where)
    found: Any = module
    for part in what.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise WrongUse(f"{where!r} has no {what!r}{_suggest(part, found)}") from None
    if not callable(found):
        raise WrongUse(f"{target!r} is of type {type(found).__name__}, which cannot be called")
    function: Callable[..., Any] = found
    return function


def _suggest_colon(target: str) -> str:
    module, dot, name = target.rpartition(".")
    if dot and name not in ("py", "") and os.sep not in target:
        return f"; did you mean '{module}:{name}'?"
    return "; which function of it?" if target.endswith(".py") else ""


def _suggest(name: str, owner: object) -> str:
    import difflib

    close = difflib.get_close_matches(name, [one for one in dir(owner) if one[0] != "_"], 3)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _from_file(path: str) -> ModuleType:
    if not os.path.isfile(path):
        kind = "is a folder" if os.path.isdir(path) else "does not exist"
        raise WrongUse(f"TARGET: the file {path!r} {kind}")
    full = os.path.realpath(path)
    folder, file = os.path.split(full)
    stem, extension = os.path.splitext(file)
    if extension != ".py":
        raise WrongUse(f"TARGET: {path!r} is not a Python file (its name must end in .py)")
    if "." in stem:
        raise WrongUse(f"TARGET: {path!r} cannot be imported, because of the dot in its name")
    names = [stem]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        names.insert(0, package)
    if names[-1] == "__init__":
        names.pop()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = _import(".".join(names))
    taken = getattr(module, "__file__", None)
    if taken is None or os.path.realpath(taken) != full:
        raise WrongUse(
            f"TARGET: {path!r} cannot be imported under its own name: {module.__name__!r} is "
            f"{taken or 'a built-in module'} already; rename the file"
        )
    return module


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise WrongUse(f"there is no module {error.name!r}") from None
        raise WrongUse(_failed(name, error)) from None
    except (Exception, SystemExit) as error:
        raise WrongUse(_failed(name, error)) from None


def _failed(name: str, error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return (
            f"importing {name!r} ended with SystemExit({error.code!r}): what the module does when "
            'it is run belongs under `if __name__ == "__main__":`'
        )
    return f"importing {name!r} failed:\n{user_traceback(error)}"
