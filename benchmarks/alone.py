"""Measurements that need an interpreter of their own."""

from __future__ import annotations

import compileall
import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _run(source: str, *args: str, timeout: float = 600) -> float:
    """Run a program from a file; the number that it prints last is what it measured."""
    _compile()
    path = os.pathsep.join([str(ROOT), *sys.path])
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "measure.py")
        program.write_text(source)
        done = subprocess.run(
            [sys.executable, str(program), *args],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr else "failed")
    return float(done.stdout.split()[-1])


@functools.cache
def _compile() -> None:
    """What pip does when it installs a package, but not where it is edited in place: without it a
    fresh interpreter that may not write beside the source compiles all of it each time."""
    found = importlib.util.find_spec("lightwork")
    if found is not None and found.submodule_search_locations:
        compileall.compile_dir(found.submodule_search_locations[0], quiet=1)


def import_seconds(line: str) -> float:
    """How long an import takes in a fresh interpreter."""
    return _run(
        f"import time\nbegin = time.perf_counter()\n{line}\nprint(time.perf_counter() - begin)\n"
    )


_FIRST = """
import time
from benchmarks.work import bump
{imports}
if __name__ == "__main__":
    begin = time.perf_counter()
    pool = {pool}
    assert {call} == 2
    print(time.perf_counter() - begin)
    {close}
"""

FIRST = {
    "lightwork": (
        "from lightwork import Pool",
        "Pool('processes', 2)",
        "pool.submit(bump, 1).result()",
        "pool.shutdown()",
    ),
    "ProcessPoolExecutor, forkserver": (
        "import multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor",
        "ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('forkserver'))",
        "pool.submit(bump, 1).result()",
        "pool.shutdown()",
    ),
    "ProcessPoolExecutor, spawn": (
        "import multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor",
        "ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('spawn'))",
        "pool.submit(bump, 1).result()",
        "pool.shutdown()",
    ),
    "ProcessPoolExecutor, fork": (
        "import multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor",
        "ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork'))",
        "pool.submit(bump, 1).result()",
        "pool.shutdown()",
    ),
    "loky": (
        "import loky",
        "loky.ProcessPoolExecutor(2)",
        "pool.submit(bump, 1).result()",
        "pool.shutdown()",
    ),
}


def first_result_seconds(name: str) -> float:
    """From nothing to the first result of a new pool."""
    imports, pool, call, close = FIRST[name]
    return _run(_FIRST.format(imports=imports, pool=pool, call=call, close=close))


_MEMORY = """
import os, sys
from benchmarks.work import bump
from lightwork import Pool

def resident():
    pages, todo = 0, [os.getpid()]
    while todo:
        pid = todo.pop()
        try:
            pages += int(open(f"/proc/{pid}/statm").read().split()[1])
            for thread in os.listdir(f"/proc/{pid}/task"):
                todo += map(int, open(f"/proc/{pid}/task/{thread}/children").read().split())
        except OSError:
            pass
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

count = int(sys.argv[1])
settled = min(200_000, count // 3)
with Pool("processes", 2) as pool:
    highest = first = 0.0
    for number, found in enumerate(pool.map(bump, range(count)), 1):
        if found != number:
            raise AssertionError("wrong results")
        if number % 20_000 == 0 and number >= settled:
            now = resident()
            first = first or now
            highest = max(highest, now)
if number != count:
    raise AssertionError("results are missing")
print(highest - first)
"""


def growth_megabytes(count: int) -> float:
    """How much resident memory a long map adds, in 10**6 bytes."""
    return _run(_MEMORY, str(count))
