"""Functions and classes of the main script, in a worker that does not import the script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wire.peer import ROOT, SOURCE

START = """
from tests.wire.peer import Peer
"""

SCRIPTS = {
    "initializer": """
MODEL = None
CACHE = {}
K = 2

def init():
    global MODEL
    MODEL = lambda x: 10 * x
    CACHE["filled"] = "there"

def task(x):
    return MODEL(x) + K, dict(CACHE)

with Peer() as peer:
    peer.call(init)
    assert peer.call(task, 3) == (32, {"filled": "there"})
    K = 3
    assert peer.call(task, 3) == (33, {"filled": "there"})
    # The parent's own change wins over what the worker did to its copy.
    CACHE["here"] = 1
    assert peer.call(task, 3) == (33, {"here": 1})
assert MODEL is None
""",
    "notebook": """
K = 2
def f(x):
    return x + K
with Peer() as peer:
    old = peer.table.ship(f)
    assert peer.call(f, 1) == 3
    K = 3
    new = peer.table.ship(f)
    assert peer.call(f, 1) == 4
    K = 2
    assert peer.call(f, 1) == 3
    K = 5
    assert peer.call(f, 1) == 6
    # Calls that were shipped earlier, and run later, see what was then.
    for shipped, expected in [(old, 3), (new, 4), (old, 3)]:
        peer.send(shipped, 1)
        assert peer.receive() == expected
    def f(x):
        return x * K
    assert peer.call(f, 7) == 35
""",
    "kept": """
COUNT = 0
def bump():
    global COUNT
    COUNT += 1
    return COUNT
def read():
    return COUNT
with Peer() as peer:
    assert [peer.call(bump) for _ in range(3)] == [1, 2, 3]
    assert peer.call(read) == 3
assert COUNT == 0
""",
    "recursion": """
import functools
def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)
@functools.lru_cache(maxsize=50)
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def info(): return fib.cache_info().currsize, fib.cache_parameters()
def deco(fn):
    @functools.wraps(fn)
    def wrapper(*args): return ("wrapped", fn(*args))
    return wrapper
@deco
def decorated(n):
    "Its doc."
    return n + 1
def about(): return decorated.__doc__, decorated.__name__, decorated.__wrapped__(1)
with Peer() as peer:
    assert peer.call(even, 10) is True
    assert peer.call(odd, 10) is False
    assert peer.call(fib, 80) == fib(80)
    size, parameters = peer.call(info)
    assert parameters == {"maxsize": 50, "typed": False}
    assert size == 50, size  # the worker's cache stayed
    assert peer.call(decorated, 1) == ("wrapped", 2)
    assert peer.call(about) == ("Its doc.", "decorated", 2)
    assert peer.call(lambda n: [f(n) for f in (even, odd)], 4) == [True, False]
    assert peer.call(functools.partial(divmod, 7), 2) == (3, 1)
    assert peer.call(functools.partial(decorated, 5)) == ("wrapped", 6)
""",
    "classes": """
import abc, collections, dataclasses, enum, functools, typing
class Color(enum.Enum):
    RED = 1
    BLUE = "b"
class Bits(enum.Flag):
    A = 1
    B = 2
@dataclasses.dataclass
class Point:
    x: int
    y: list = dataclasses.field(default_factory=list)
    @functools.cached_property
    def twice(self): return 2 * self.x
@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    a: int
Pair = collections.namedtuple("Pair", "a b")
class Named(typing.NamedTuple):
    a: int
    b: str = "b"
class Base(abc.ABC):
    @abc.abstractmethod
    def name(self): ...
    def hello(self): return "hello " + self.name()
class Derived(Base):
    __slots__ = ("n",)
    def __init__(self, n): self.n = n
    def name(self): return f"derived {self.n}"
    def hello(self): return super().hello() + "!"
    @property
    def prop(self): return self.n
    @classmethod
    def make(cls, n): return cls(n)
    @staticmethod
    def stat(n): return n
class Meta(type):
    def shout(cls): return cls.__name__.upper()
class WithMeta(metaclass=Meta): pass
class Error(Exception):
    def __init__(self, code, *, detail):
        super().__init__(f"code {code}")
        self.code, self.detail = code, detail
T = typing.TypeVar("T")
class Box(typing.Generic[T]):
    def __init__(self, value): self.value = value
def same(obj): return obj
def check(obj, cls): return isinstance(obj, cls)
def make():
    return Color.RED, Bits.A | Bits.B, Point(1), Frozen(2), Pair(1, 2), Named(1), Derived.make(5)
def fail(): raise Error(3, detail="x")
with Peer() as peer:
    things = [Color.BLUE, Bits.A, Point(3, [1]), Frozen(1), Pair(1, 2), Named(3), WithMeta, Color,
              Point, Box(3), Box[int], Derived]
    for thing in things:
        back = peer.call(same, thing)
        if not isinstance(thing, (Point, Box)): assert back == thing, (back, thing)
        assert type(back) is type(thing), (type(back), type(thing))
        if isinstance(thing, type): assert back is thing
    derived = peer.call(same, Derived(4))
    assert type(derived) is Derived and derived.hello() == "hello derived 4!" and derived.prop == 4
    assert peer.call(check, Derived(1), Base) and not peer.call(check, Point(1), Base)
    made = peer.call(make)
    assert [type(one) for one in made] == [Color, Bits, Point, Frozen, Pair, Named, Derived]
    assert made[0] is Color.RED and made[1] == Bits.A | Bits.B and made[2].twice == 2
    assert peer.call(WithMeta.shout) == "WITHMETA"
    assert peer.call(Derived(7).hello) == "hello derived 7!"
    try:
        peer.call(fail)
    except Error as error:
        assert (error.code, error.detail, str(error)) == (3, "x", "code 3")
    else:
        raise AssertionError
    assert peer.call(same, Point(3)).twice == 6
""",
    "class state": """
class Config:
    limit = 1
    table = {}
    def get(self): return self.limit, dict(self.table)
def change():
    Config.limit = 100
    Config.table["worker"] = 1
def get(): return Config().get()
def same(x): return x
with Peer() as peer:
    assert peer.call(get) == (1, {})
    Config.limit = 2
    assert peer.call(get) == (2, {})
    peer.call(change)
    assert peer.call(get) == (100, {"worker": 1})  # bound there: kept
    Config.limit = 3
    assert peer.call(get) == (100, {"worker": 1})
    # Nothing of what the worker did comes home, not even with an instance.
    assert type(peer.call(same, Config())) is Config
    assert Config.limit == 3 and Config.table == {}
    Config.get = lambda self: "changed"
    assert peer.call(get) == "changed"
""",
    "class redefined": """
import gc, weakref
def same(x): return x
with Peer() as peer:
    class P:
        def __init__(self): self.v = 1
    first = peer.call(same, P())
    assert type(first) is P
    Old = P
    class P:
        def __init__(self): self.v = 2
    assert type(peer.call(same, P())) is P and type(peer.call(same, first)) is Old
    def local():
        class Local:
            n = 5
        return Local()
    for _ in range(20):
        assert peer.call(same, local()).n == 5
    def made_there():
        class There:
            n = 6
        return There()
    assert peer.call(made_there).n == 6
    assert peer.call(same, peer.call(made_there)).n == 6
""",
    "exec": """
import types, sys
space = {}
exec("N = 4\\ndef f(x): return x + N", space)
module = types.ModuleType("made_up")
source = "N = 5\\ndef f(x):\\n    global N\\n    N += x\\n    return N\\ndef g(): return N"
exec(source, module.__dict__)
class_source = "class C:\\n    def get(self): return N"
exec(class_source, module.__dict__)
with Peer() as peer:
    assert peer.call(space["f"], 1) == 5
    assert peer.call(module.f, 1) == 6
    assert peer.call(module.f, 1) == 7
    module.N = 5.0
    sys.modules["made_up"] = module
    assert peer.call(module.f, 1) == 6
    assert peer.call(module.g) == 6
    assert peer.call(module.C().get) == 6
""",
    "class in function": """
K = 4
def outer():
    class Inner:
        value = K
        def get(self): return self.value + K
    return Inner().get()
with Peer() as peer:
    assert peer.call(outer) == 8
""",
    "callables": """
import functools, operator, math
class Adder:
    def __init__(self, n): self.n = n
    def __call__(self, x): return x + self.n
adder = Adder(3)
def use(x): return adder(x)
def gen(n):
    yield from range(n)
def listed(n): return list(gen(n))
async def co(): return 1
def closure(n):
    total = [0]
    def add(x):
        total[0] += x + n
        return total[0]
    return add
with Peer() as peer:
    assert peer.call(adder, 1) == 4
    adder.n = 5
    assert peer.call(adder, 1) == 6 and peer.call(use, 1) == 6
    assert peer.call(listed, 3) == [0, 1, 2]
    assert peer.call(operator.itemgetter(1), "ab") == "b"
    assert peer.call(math.factorial, 5) == 120
    assert peer.call("abc".upper) == "ABC"
    assert peer.call(int, "7") == 7
    assert peer.call(closure(1), 1) == 2
    assert peer.call(Adder, 1).n == 1
    def default(x, y=K if (K := 9) else 0, *, z=[1]): return x + y + z[0]
    assert peer.call(default, 1) == 11
    default.__kwdefaults__["z"] = [2]
    assert peer.call(default, 1) == 12
    default.__defaults__ = (0,)
    assert peer.call(default, 1) == 3
""",
    "big globals": """
import pickle
DATA = list(range(100_000))
def f(): return len(DATA)
with Peer() as peer:
    assert peer.call(f) == 100_000
    DATA.append(1)
    assert peer.call(f) == 100_001
""",
    "results": """
K = 3
def helper(x): return x + K
def give(): return helper, (lambda x: helper(x) * 2)
with Peer() as peer:
    one, two = peer.call(give)
    assert one(1) == 4 and two(1) == 8
    K = 4
    assert one(1) == 5  # it lives in our namespace now
    extra = 1
assert helper(1) == 5
""",
}


def run(source: str, folder: Path, how: str = "file") -> None:
    source = START + source + "\nprint('done')\n"
    path = folder / "script.py"
    path.write_text(source)
    args = {"file": [str(path)], "-c": ["-c", source], "stdin": ["-"], "-m": ["-m", "script"]}[how]
    done = subprocess.run(
        [sys.executable, "-W", "error", *args],
        input=source if how == "stdin" else None,
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": f"{SOURCE}:{ROOT}"},
    )
    assert done.returncode == 0, done.stderr
    assert (done.stderr, done.stdout) == ("", "done\n")


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(name: str, tmp_path: Path) -> None:
    run(SCRIPTS[name], tmp_path)


@pytest.mark.parametrize("how", ["-c", "stdin", "-m"])
@pytest.mark.parametrize("name", ["initializer", "classes", "recursion"])
def test_other_ways_to_start(name: str, how: str, tmp_path: Path) -> None:
    run(SCRIPTS[name], tmp_path, how)


def test_as_a_child_of_multiprocessing(tmp_path: Path) -> None:
    """There the script is called ``__mp_main__``."""
    source = """
import multiprocessing
K = 2
class C:
    pass
def f(x): return x + K, C()
def body():
    global K
    with Peer() as peer:
        assert peer.call(f, 1)[0] == 3
        K = 3
        number, instance = peer.call(f, 1)
        assert number == 4 and type(instance) is C
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=body)
    process.start()
    process.join()
    assert process.exitcode == 0
"""
    (tmp_path / "script.py").write_text(START + source + "\n    print('done')\n")
    done = subprocess.run(
        [sys.executable, "script.py"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": f"{SOURCE}:{ROOT}"},
    )
    assert done.returncode == 0, done.stderr
    assert (done.stderr, done.stdout) == ("", "done\n")


FORKED = """
import os, pickle, sys, types
from lightwork.wire.functions import FunctionCache, FunctionTable
from lightwork.wire.pickling import pack, unpack
hidden = sys.modules["hidden"] = types.ModuleType("hidden")
exec("N = 1\\ndef f(): return N", hidden.__dict__)
class C:
    n = 1
    def get(self): return self.n
K = 1
def f(): return C().get(), K, C()
table = FunctionTable()
table.ship(f), table.ship(hidden.f), pack(C())  # what a parent has done before it forks
before = C
fork_read, fork_write = os.pipe()
ours, theirs = os.pipe()
pid = os.fork()
if pid == 0:
    sys.modules["__main__"] = types.ModuleType("__main__")
    cache = FunctionCache()
    data = b""
    os.close(fork_write)
    with open(fork_read, "rb") as source, open(theirs, "wb") as sink:
        for key, function in enumerate(pickle.load(source)):
            cache.add(key, function)
            pickle.dump(pack(cache.get(key)(), home=True).data, sink)
    os._exit(0)
C.n = 2
K = 2
hidden.N = 2
os.close(theirs)
with open(fork_write, "wb") as sink:
    pickle.dump([table.ship(f).data, table.ship(hidden.f).data], sink)
with open(ours, "rb") as source:
    n, k, c = unpack(pickle.load(source))
    assert (n, k) == (2, 2), (n, k)
    assert type(c) is C and len(pickle.dumps(c)) < 100
    assert unpack(pickle.load(source)) == 2
assert os.waitpid(pid, 0)[1] == 0
"""


def test_a_worker_that_was_forked(tmp_path: Path) -> None:
    """It inherits our classes and modules, and still takes over what we change in them."""
    run(FORKED, tmp_path)


def test_module_not_on_the_path(tmp_path: Path) -> None:
    """A module that was loaded from a file, as test runners and plugins do, goes by value."""
    (tmp_path / "hidden.py").write_text("N = 3\ndef f(x):\n    return x + N\nclass C:\n    n = N\n")
    source = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("hidden", {str(tmp_path / "hidden.py")!r})
hidden = sys.modules["hidden"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hidden)
def same(x): return x
sys.path.remove({str(tmp_path)!r})
with Peer(cwd="/") as peer:
    assert peer.call(hidden.f, 1) == 4
    hidden.N = 4
    assert peer.call(hidden.f, 1) == 5
    assert type(peer.call(same, hidden.C())) is hidden.C
"""
    run(source, tmp_path)
