"""The main script's own functions: no main guard, no module, no file even."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .interpreter import HOWS, run

METHODS = ("forkserver", "spawn", "fork")

WITHOUT_GUARD = """
import sys
from lightwork import Pool

print("main runs")
THREE = 3

def square(x):
    return x * x

class Account:
    def __init__(self, total):
        self.total = total
    def plus(self, x):
        return Account(self.total + x)

pool = Pool("processes", 2, start_method={method!r})
print(pool.submit(square, 5).result())
print(list(pool.map(lambda x: x + THREE, range(3))))
print(sum(pool.map(square, range(1000))))
account = pool.submit(Account(40).plus, 2).result()
print(isinstance(account, Account), account.total)
pool.shutdown()
"""


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("method", METHODS)
def test_no_main_guard(how: str, method: str, tmp_path: Path) -> None:
    done = run(WITHOUT_GUARD.format(method=method), tmp_path, how=how).fine()
    assert done.out.splitlines() == ["main runs", "25", "[3, 4, 5]", "332833500", "True 42"]


RICH = """
import abc, dataclasses, enum, functools, typing
from collections import namedtuple
from lightwork import Pool

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

Point = namedtuple("Point", "x y")

@dataclasses.dataclass
class Item:
    name: str
    colour: Colour = Colour.RED

class Base(abc.ABC):
    count = 0
    @abc.abstractmethod
    def area(self): ...
    def describe(self):
        return f"{type(self).__name__} of {self.area()}"

class Square(Base):
    def __init__(self, side):
        super().__init__()
        self.side = side
    def area(self):
        return self.side ** 2

class Mistake(Exception):
    def __init__(self, code):
        super().__init__(f"mistake {code}")
        self.code = code

def logged(fn):
    @functools.wraps(fn)
    def inner(*args):
        return ("logged", fn(*args))
    return inner

@logged
def twice(x):
    return 2 * x

@functools.lru_cache
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

def even(n):
    return True if n == 0 else odd(n - 1)

def odd(n):
    return False if n == 0 else even(n - 1)

def make_adder(n):
    def add(x):
        return x + n
    return add

def paint(item, colour):
    assert isinstance(item, Item) and isinstance(colour, Colour)
    return dataclasses.replace(item, colour=colour)

def fail(code):
    raise Mistake(code)

def move(point):
    return Point(point.x + 1, point.y)

with Pool("processes", 2) as pool:
    painted = pool.submit(paint, Item("a"), Colour.BLUE).result()
    assert type(painted) is Item and painted.colour is Colour.BLUE, painted
    assert pool.submit(move, Point(1, 2)).result() == Point(2, 2)
    square = pool.submit(Square, 3).result()
    assert type(square) is Square and isinstance(square, Base)
    assert pool.submit(square.describe).result() == "Square of 9"
    assert list(pool.map(Square.area, [Square(n) for n in range(5)])) == [0, 1, 4, 9, 16]
    assert list(pool.map(twice, range(3))) == [("logged", 0), ("logged", 2), ("logged", 4)]
    assert pool.submit(fibonacci, 50).result() == 12586269025
    assert list(pool.map(even, range(4))) == [True, False, True, False]
    assert list(pool.map(make_adder(10), range(3))) == [10, 11, 12]
    try:
        pool.submit(fail, 7).result()
    except Mistake as error:
        assert error.code == 7 and str(error) == "mistake 7"
        assert "raise Mistake(code)" in str(error.__cause__), error.__cause__
    for failure in pool.map(fail, range(3), on_error="return"):
        assert type(failure.exception) is Mistake, failure
    assert list(pool.map(Colour, [1, 2])) == [Colour.RED, Colour.BLUE]
print("all fine")
"""


@pytest.mark.parametrize("how", ["file", "-c"])
def test_classes_and_functions_of_every_sort(how: str, tmp_path: Path) -> None:
    source = RICH
    if how == "-c":
        # There is no source for the traceback to show.
        source = "\n".join(
            line for line in RICH.splitlines() if "in str(error.__cause__)" not in line
        )
    assert run(source, tmp_path, how=how).fine().out == "all fine\n"


GLOBALS = """
import os
from lightwork import Pool

MODEL = None
LOADS = 0

def load(size):
    global MODEL, LOADS
    MODEL = list(range(size))
    LOADS += 1

def use(x):
    return MODEL[x], LOADS, os.getpid()

def count():
    global LOADS
    LOADS += 1
    return LOADS

with Pool({kind!r}, 2, initializer=load, initargs=(1000,){extra}) as pool:
    found = list(pool.map(use, range(200)))
    assert [x for x, _, _ in found] == list(range(200)), found
    {check}
    assert pool.submit(use, 5).result()[0] == 5
print("all fine")
"""


@pytest.mark.parametrize("method", METHODS)
def test_globals_that_an_initializer_sets(method: str, tmp_path: Path) -> None:
    source = GLOBALS.format(
        kind="processes",
        extra=f", start_method={method!r}",
        check="assert {loads for _, loads, _ in found} == {1} and MODEL is None, found",
    )
    assert run(source, tmp_path).fine().out == "all fine\n"


def test_globals_are_the_same_in_threads(tmp_path: Path) -> None:
    source = GLOBALS.format(kind="threads", extra="", check="assert MODEL is not None")
    assert run(source, tmp_path).fine().out == "all fine\n"


STATE = """
from lightwork import Pool
count = 0

def bump(_=None):
    global count
    count += 1
    return count

def read():
    return count

with Pool("processes", 1) as pool:
    # A worker keeps its state, over functions, too.
    assert [pool.submit(bump).result() for _ in range(3)] == [1, 2, 3]
    assert pool.submit(read).result() == 3
    assert list(pool.map(bump, range(3))) == [4, 5, 6]
    assert count == 0
print("all fine")
"""


def test_workers_keep_state_in_globals(tmp_path: Path) -> None:
    assert run(STATE, tmp_path).fine().out == "all fine\n"


CHANGED = """
from lightwork import Pool
K = 2
TABLE = {"a": 1}

def scale(x):
    return x * K + TABLE["a"]

with Pool("processes", 1) as pool:
    assert list(pool.map(scale, range(3))) == [1, 3, 5]
    K = 3
    assert list(pool.map(scale, range(3))) == [1, 4, 7]
    TABLE["a"] = 100
    assert pool.submit(scale, 1).result() == 103

    def scale(x):
        return -x
    assert pool.submit(scale, 1).result() == -1
print("all fine")
"""


@pytest.mark.parametrize("how", HOWS)
def test_what_changes_in_main_is_seen(how: str, tmp_path: Path) -> None:
    assert run(CHANGED, tmp_path, how=how).fine().out == "all fine\n"


WITH_GUARD = """
import multiprocessing
from lightwork import Pool

print("main runs", __name__)

def square(x):
    return x * x, __name__

if __name__ == "__main__":
    multiprocessing.freeze_support()
    with Pool("processes", 2) as pool:
        print(list(pool.map(square, range(3))))
"""


def test_with_a_main_guard(tmp_path: Path) -> None:
    done = run(WITH_GUARD, tmp_path).fine()
    assert done.out.splitlines() == [
        "main runs __main__",
        "[(0, '__main__'), (1, '__main__'), (4, '__main__')]",
    ]


def test_as_a_module(tmp_path: Path) -> None:
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("def triple(x):\n    return 3 * x\n")
    (package / "__main__.py").write_text(
        "from lightwork import Pool\n"
        "from .helper import triple\n"
        "def local(x):\n"
        "    return triple(x) + 1\n"
        "with Pool('processes', 2) as pool:\n"
        "    print(list(pool.map(triple, range(3))), list(pool.map(local, range(3))))\n"
    )
    done = run("import runpy; runpy.run_module('mine', run_name='__main__')", tmp_path).fine()
    assert done.out == "[0, 3, 6] [1, 4, 7]\n"


def test_a_module_beside_the_script(tmp_path: Path) -> None:
    """Workers find what the script finds, also what it put on its path later."""
    (tmp_path / "beside.py").write_text("def triple(x):\n    return 3 * x\n")
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "there.py").write_text("def five(x):\n    return 5 * x\n")
    source = """
    import sys
    from lightwork import Pool
    from beside import triple
    pool = Pool("processes", 2)
    print(list(pool.map(triple, range(3))))
    sys.path.insert(0, "later")
    from there import five
    with Pool("processes", 2) as other:
        print(list(other.map(five, range(3))))
    pool.shutdown()
    """
    assert run(source, tmp_path).fine().out == "[0, 3, 6]\n[0, 5, 10]\n"


CONSOLE = """\
from lightwork import Pool
pool = Pool("processes", 2)
def square(x):
    return x * x

print(list(pool.map(square, range(5))))
print(pool.submit(lambda: "from a lambda").result())
class Point:
    def __init__(self, x):
        self.x = x

print([type(p) is Point for p in pool.map(Point, range(2))])
def square(x):
    return -x

print(pool.submit(square, 3).result())
pool.submit(lambda: 1 / 0).exception()
pool.shutdown()
print("end")
"""


def test_typed_into_a_console(tmp_path: Path) -> None:
    done = run(CONSOLE, tmp_path, how="console")
    assert done.status == 0
    lines = [line for line in done.out.splitlines() if line]
    assert lines[:4] == ["[0, 1, 4, 9, 16]", "from a lambda", "[True, True]", "-3"]
    assert "ZeroDivisionError" in lines[4]
    assert lines[-1] == "end"
    assert "Traceback" not in done.err


def test_a_console_that_is_left_with_a_live_pool(tmp_path: Path) -> None:
    source = CONSOLE.replace("pool.shutdown()\n", "")
    done = run(source, tmp_path, how="console")
    assert done.status == 0
    assert done.out.splitlines()[-1] == "end"
    assert "Traceback" not in done.err


NOTEBOOK = """
import sys, types
cells = [
    "from lightwork import Pool",
    "pool = Pool('processes', 2)",
    "import math\\ndef area(r):\\n    return math.pi * r * r",
    "small = list(pool.map(area, range(3)))",
    "FACTOR = 2\\ndef scaled(r):\\n    return FACTOR * area(r)",
    "two = pool.submit(scaled, 1).result()",
    "FACTOR = 4",
    "four = pool.submit(scaled, 1).result()",
    "class Model:\\n    def fit(self, x):\\n        self.value = scaled(x); return self",
    "fitted = pool.submit(Model().fit, 1).result()",
    "assert type(fitted) is Model and fitted.value == four == 2 * two",
    "pool.shutdown()",
]
main = types.ModuleType("__main__")
sys.modules["__main__"] = main
for number, cell in enumerate(cells):
    exec(compile(cell, f"<cell {number}>", "exec"), main.__dict__)
print("all fine")
"""


def test_cells_of_a_notebook(tmp_path: Path) -> None:
    assert run(NOTEBOOK, tmp_path).fine().out == "all fine\n"


EXEC = """
from lightwork import Pool
names = {}
exec("def square(x):\\n    return x * x", names)
with Pool("processes", 2) as pool:
    print(list(pool.map(names["square"], range(4))))
"""


def test_functions_made_by_exec(tmp_path: Path) -> None:
    assert run(EXEC, tmp_path).fine().out == "[0, 1, 4, 9]\n"


@pytest.mark.skipif(
    sys.version_info[:3] == (3, 13, 0), reason="that Python cannot even import socket there"
)
def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    source = """
    import os, tempfile
    from lightwork import Pool
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)
    with Pool("processes", 2) as pool:
        print(list(pool.map(abs, range(-3, 0))))
    """
    assert run(source, tmp_path).fine().out == "[3, 2, 1]\n"


def test_standard_output_of_workers_arrives(tmp_path: Path) -> None:
    source = """
    import sys
    from lightwork import Pool
    def say(x):
        print("word", x)
        print("error", x, file=sys.stderr)
    with Pool("processes", 2) as pool:
        list(pool.map(say, range(5)))
    """
    # Where Python is told not to buffer, print() writes in pieces, which may mix.
    done = run(source, tmp_path, variables={"PYTHONUNBUFFERED": ""})
    assert done.status == 0
    assert sorted(done.out.splitlines()) == [f"word {n}" for n in range(5)]
    assert sorted(done.err.splitlines()) == [f"error {n}" for n in range(5)]


def test_standard_streams_may_be_closed(tmp_path: Path) -> None:
    source = """
    import os, sys
    from lightwork import Pool
    out = os.dup(1)
    for fd in (0, 1, 2):
        os.close(fd)
    sys.stdin = sys.stdout = sys.stderr = None
    with Pool("processes", 2) as pool:
        found = list(pool.map(abs, range(-3, 0)))
    os.write(out, repr(found).encode())
    """
    assert run(source, tmp_path).fine().out == "[3, 2, 1]"
