"""The plan of the house: who may import whom, and what a name's home promises."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts import ROOT, run_script

PACKAGE = ROOT / "src" / "lightwork"
BACKENDS = ("serial", "threads", "processes", "interpreters", "dask", "ray")

BASE = {"errors", "options"}
ENGINE = {*BASE, "core", "backends.base", "blame", "current", "future", "observe", "weak"}
PUBLIC = {""}  # the package itself: its public names

# Room -> rooms that it may import. Nothing that is not here; so imports only point down.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": {"broken", "crashes"},  # loads them when they are asked for
    "broken": {"errors"},
    "crashes": {"errors"},
    "options": set(),
    "current": {"errors"},
    "core": BASE,
    "wire": BASE,
    "backends.base": {"core"},
    "blame": {"backends.base", *BASE},
    "future": {"errors", "pump"},
    "bunch": {"future", "ledger"},  # futures whose calls travel together
    "pump": set(),  # who waits; knows nothing of what for
    "backends.local": set(),  # calls that run in this very process
    # What a worker sees and says of itself, and where it arrives; used by backends and engine.
    "observe": {*BASE, "current", "wire", "observe.monitor", "observe.bars"},
    **{
        f"backends.{one}": {
            *(*BASE, "core", "wire", "backends.base", "backends.local", "current", "observe")
        }
        for one in BACKENDS
    },
    "ledger": ENGINE,  # what the engine knows of its tasks
    "carrier": {*ENGINE, "bunch", "ledger"},
    "policy": {*BASE, "core"},
    "weak": set(),  # what is known as long as it lives
    "exits": {"weak"},  # the end of the program, and what must be ended then
    "engine": {*ENGINE, "bunch", "carrier", "exits", "ledger", "policy", "pump"},
    "stream": {*BASE, "engine", "future", "pump"},
    "journal": {*BASE, "stream", "wire"},
    # kind="auto": one function's route, the places it can go to, and what joins them
    "decision": {"measure.model"},
    "hop": ENGINE,
    "route": {*ENGINE, "backends.local", "measure", "measure.model", "wire"},
    "lane": {*ENGINE, "engine", "hop", "pump", "route"},
    "places": {*ENGINE, "engine", "measure", "measure.model", "route"},
    "judge": {
        *{*ENGINE, "backends.local", "decision", "lane", "measure", "measure.model"},
        *{"places", "route"},
    },
    "router": {
        *{*ENGINE, "engine", "exits", "hop", "judge", "lane", "measure.model", "places", "pump"},
        *{"decision", "route"},
    },
    # The one place of assembly. Backends are loaded by name; what counts CPUs is no backend.
    "assembly": {*ENGINE, "decision", "engine", "journal", "router", "backends.processes"},
    "pool": {
        *{*ENGINE, "assembly", "decision", "engine", "exits", "journal", "stream"},
        "backends.processes",
    },
    "testing": {*BASE, "backends.base", "backends.local", "backends.serial", "core"},
    "measure.model": BASE,
    "measure": {*BASE, "measure.model", "wire", "backends.processes", *PUBLIC},
    "share": {*BASE, "current", "weak", "wire"},
    "compat": PUBLIC,
    "demos": {*PUBLIC, "share"},  # a public name, too
    "observe.monitor": set(),  # how to look at a pool; also for who looks
    "observe.bars": set(),  # how to print beside a bar
    "cli": {*PUBLIC, "demos", "measure", "observe.monitor", "observe.bars"},
    "__main__": {"cli"},
    "": set(),  # loads its names lazily, by their homes' names
}

PUBLIC_MODULES = {"current", "decision", "errors", "future", "options", "pool", "testing", "share"}

HEAVY = {
    "asyncio", "cloudpickle", "concurrent.futures.process", "dask", "joblib", "json", "logging",
    "multiprocessing", "numpy", "psutil", "ray", "sqlite3", "subprocess", "tqdm",
}  # fmt: skip


def modules() -> Iterator[tuple[str, Path]]:
    """The name behind ``lightwork.`` and the file of each module; "" for the package itself."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def room(module: str) -> str:
    """The room that a module is in: the longest name of the table that it begins with."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (name := ".".join(parts[:length])) in MAY_IMPORT:
            return name
    return "" if module == "" else f"unknown room {module}"


class Imports(ast.NodeVisitor):
    """Collects what a module of ours imports of ours, when it runs."""

    def __init__(self, module: str, is_package: bool, names: set[str]) -> None:
        self.found: set[str] = set()
        self.names = names
        full = f"lightwork.{module}".rstrip(".").split(".")
        self.package = full if is_package else full[:-1]

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.dump(node.test):
            for one in node.orelse:
                self.visit(one)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for one in node.names:
            self._add(one.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        start = self.package[: len(self.package) - node.level + 1] if node.level else []
        base = ".".join([*start, *(node.module.split(".") if node.module else [])])
        for one in node.names:
            inner = f"{base}.{one.name}"
            self._add(inner if inner.removeprefix("lightwork.") in self.names else base)

    def _add(self, name: str) -> None:
        if name == "lightwork" or name.startswith("lightwork."):
            self.found.add(name.removeprefix("lightwork").removeprefix("."))


def test_imports_point_down() -> None:
    names = {name for name, _ in modules()}
    wrong = []
    for module, path in modules():
        if module == "backends":
            continue  # an empty front
        visitor = Imports(module, path.name == "__init__.py", names)
        visitor.visit(ast.parse(path.read_text()))
        own = room(module)
        allowed = MAY_IMPORT.get(own)
        if allowed is None:
            wrong.append(f"{module} is in no room of the table")
            continue
        wrong += [
            f"{module} imports {other or 'lightwork'}: {own} must not import {room(other)!r}"
            for other in sorted(visitor.found)
            if room(other) != own and room(other) not in allowed
        ]
    assert not wrong, "\n".join(wrong)


def test_the_core_is_pure() -> None:
    """No thread, process, clock, socket, file, pickle or log: not even the modules for them."""
    pure = {"bisect", "collections", "collections.abc", "dataclasses", "enum", "functools"}
    pure |= {"__future__", "heapq", "itertools", "math", "operator", "random", "typing"}
    used = set()
    for module, path in modules():
        if room(module) != "core":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used |= {one.name for one in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                used.add(node.module or "")
    assert used <= pure


@pytest.mark.parametrize("module", [name for name, _ in modules() if name != "__main__"])
def test_all_is_right_both_ways(module: str) -> None:
    """Every name of ``__all__`` is there; and what a public module makes is in it, or private."""
    loaded = importlib.import_module(f"lightwork.{module}".rstrip("."))
    listed = getattr(loaded, "__all__", None)
    path = dict(modules())[module]
    tree = ast.parse(path.read_text())
    made = {
        one.name
        for one in tree.body
        if isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not one.name.startswith("_")
    }
    if module and module not in PUBLIC_MODULES:
        made = set()  # its neighbours may use more of it than it offers to all
    if listed is None:
        assert not made, f"{module} makes {sorted(made)} and has no __all__"
        return
    assert len(listed) == len(set(listed))
    for name in listed:
        assert hasattr(loaded, name), f"{module}.__all__ has {name!r}, the module has not"
    assert made <= set(listed), f"{sorted(made - set(listed))} not in {module}.__all__"


def test_the_package_lists_what_it_loads() -> None:
    lightwork = importlib.import_module("lightwork")
    assert set(lightwork.__all__) == set(lightwork._HOME)
    for name, home in lightwork._HOME.items():
        assert getattr(lightwork, name) is getattr(sys.modules[home], name)
        assert name in dir(lightwork)
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        lightwork.nosuch  # noqa: B018


# Whatever catches BrokenProcessPool has to import that file of the standard library's.
UNAVOIDABLE = {"concurrent.futures.process", "logging", "multiprocessing", "subprocess"}


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import lightwork", HEAVY),
        ("import lightwork; lightwork.Pool, lightwork.Retry", HEAVY - UNAVOIDABLE),
    ],
)
def test_importing_loads_nothing_heavy(statement: str, heavy: set[str]) -> None:
    ran = run_script(
        f"""
        import sys
        before = set(sys.modules)
        {statement}
        print(*sorted(set(sys.modules) - before))
        """,
        flags=["-S"],
    )
    assert ran.status == 0, ran.err
    loaded = set(ran.out.split())
    if statement == "import lightwork":
        assert {one for one in loaded if one.startswith("lightwork")} == {"lightwork"}
    assert not loaded & heavy
