"""What the fork server imports ahead, and what it must not."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightwork.backends.processes import link
from lightwork.backends.processes.limits import NATIVE_NAMES
from tests.scripts import run_script

from .launching import Talker, alive, answer, of, run, until_started

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
ONE_THREAD = dict.fromkeys(NATIVE_NAMES, "1")


class Modules:
    """A folder with modules that this process has imported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []

    def write(self, name: str, source: str) -> None:
        (self.folder / f"{name}.py").write_text(source)

    def imported(self, name: str, source: str) -> str:
        """The full name of a new module, which is imported here."""
        name = f"lightwork_test_{name}_{os.getpid()}"
        self.write(name, source)
        self.names.append(name)
        __import__(name)
        return name


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    """Modules for a fresh server."""
    link.stop_server()
    monkeypatch.syspath_prepend(tmp_path)
    found = Modules(tmp_path)
    yield found
    for name in found.names:
        sys.modules.pop(name, None)


def ask(name: str, **options: object) -> list[int]:
    """Whether the module was there, its VALUE, the threads of the worker, its pid."""
    env = options.pop("env", ONE_THREAD)
    found: list[int] = answer("forkserver", "value_of", name.encode(), modules=(name,), env=env)
    return found


def server_pid() -> int:
    """The pid of this process's fork server."""
    assert link._state.server is not None
    return link._state.server.pid


def test_a_module_is_there_before_the_worker(modules: Modules) -> None:
    name = modules.imported("plain", "VALUE = 7")
    assert ask(name)[:3] == [True, 7, 1]
    assert ask(name)[:3] == [True, 7, 1]


def test_only_modules_that_the_parent_has(modules: Modules) -> None:
    name = modules.imported("unknown", "VALUE = 7")
    del sys.modules[name]
    assert ask(name)[0] is False


def test_the_main_module_is_never_imported() -> None:
    run("forkserver", "nothing", modules=("__main__",))
    assert answer("forkserver", "look_around", modules=("__main__", "__mp_main__"))["main"] == []


def test_spawned_workers_have_nothing(modules: Modules) -> None:
    name = modules.imported("spawned", "VALUE = 7")
    assert ask(name)[0] is True
    assert answer("spawn", "value_of", name.encode(), modules=(name,))[:2] == [False, 7]


def test_what_an_import_says_is_not_heard(
    modules: Modules, capfd: pytest.CaptureFixture[str]
) -> None:
    name = modules.imported(
        "noisy",
        "import os, sys\nprint('out')\nos.write(2, b'err')\nsys.stderr.write('e')\nVALUE = 1",
    )
    capfd.readouterr()
    assert ask(name)[:2] == [True, 1]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "source",
    [
        "import os\nif os.getpid() != {here}: raise ValueError\nVALUE = 1",
        "import os, sys\nif os.getpid() != {here}: sys.exit(3)\nVALUE = 1",
    ],
)
def test_a_module_that_cannot_be_imported(modules: Modules, source: str) -> None:
    name = modules.imported("failing", source.format(here=os.getpid()))
    assert run("forkserver", "leave", 5, modules=(name,), env=ONE_THREAD).exitcode == 5
    assert run("forkserver", "leave", 6, modules=(name,), env=ONE_THREAD).exitcode == 6


@pytest.mark.parametrize(
    "harm",
    [
        "import threading, time; threading.Thread(target=time.sleep, args=(9,)).start()",
        "kept = os.open('/dev/null', 0)",
    ],
    ids=["thread", "descriptor"],
)
def test_a_module_that_does_harm(modules: Modules, harm: str) -> None:
    """The server begins anew without it; workers that there are go on."""
    name = modules.imported(
        "harmful", f"import os\nVALUE = 2\nif os.getpid() != {os.getpid()}: {harm}"
    )
    other = modules.imported("harmless", "VALUE = 3")
    with of("forkserver") as one:
        talker = Talker(one, "hang")
        talker.hear()
        pid, server = until_started(talker.child), server_pid()
        for _ in range(3):
            assert run("forkserver", "leave", 5, modules=(name,), env=ONE_THREAD).exitcode == 5
            assert (
                answer("forkserver", "look_around", modules=(name,), env=ONE_THREAD)[
                    "modules"
                ].count(name)
                == 0
            )
            assert ask(other)[:3] == [True, 3, 1]
        assert server_pid() == server
        assert alive(pid)
        assert talker.child.poll() is None
        assert talker.kill().exitcode == -9


def test_an_edited_module_does_not_live_on(modules: Modules) -> None:
    name = modules.imported("edited", "VALUE = 10")
    assert ask(name)[:2] == [True, 10]
    for value in (110, 1210):
        time.sleep(0.01)
        modules.write(name, f"VALUE = {value}")
        assert ask(name)[:2] == [True, value]


def test_a_module_of_the_same_name_elsewhere(modules: Modules, tmp_path: Path) -> None:
    name = modules.imported("twice", "VALUE = 1")
    sys.modules[name].__file__ = "/nowhere/else.py"
    assert ask(name)[0] is False
    assert run("forkserver", "leave", 6, modules=(name,), env=ONE_THREAD).exitcode == 6


def test_a_module_that_kills_the_server_is_not_tried_again(modules: Modules) -> None:
    name = modules.imported(
        "deadly", f"import os\nif os.getpid() != {os.getpid()}: os.kill(os.getpid(), 9)\nVALUE = 1"
    )
    other = modules.imported("innocent", "VALUE = 3")
    assert run("forkserver", "nothing", modules=(name,), env=ONE_THREAD).exitcode is None
    assert run("forkserver", "leave", 4, modules=(name,), env=ONE_THREAD).exitcode == 4
    assert ask(other)[:2] == [True, 3]


def test_a_module_that_wants_workers_itself_while_it_is_imported(modules: Modules) -> None:
    name = modules.imported(
        "nested",
        "from lightwork.backends.processes.launch import Spec, launcher\n"
        "launcher('forkserver')\nVALUE = 1",
    )
    assert ask(name)[:2] == [False, 1]


class TestNativeThreads:
    """A library that counts its threads when it is loaded."""

    @pytest.fixture(autouse=True)
    def _numpy(self, modules: Modules) -> None:
        pytest.importorskip("numpy")

    def test_numpy_is_forked_with_one_thread_and_its_own_numbers(self) -> None:
        found = [
            answer("forkserver", "numpy_random", modules=("numpy",), env=ONE_THREAD)
            for _ in range(3)
        ]
        assert [there for there, _ in found] == [True] * 3
        assert len({number for _, number in found}) == 3

    def test_another_number_of_threads_gets_a_fresh_interpreter(self) -> None:
        four = dict.fromkeys(NATIVE_NAMES, "4")
        assert answer("forkserver", "numpy_random", modules=("numpy",), env=four)[0] is False
        assert answer("forkserver", "numpy_random", modules=("numpy",), env=ONE_THREAD)[0] is True
        assert answer("forkserver", "numpy_random", modules=("numpy",), env=four)[0] is False
        assert answer("forkserver", "numpy_random", modules=("numpy",), env=ONE_THREAD)[0] is True


def test_a_server_with_threads_from_the_start_does_not_fork(tmp_path: Path) -> None:
    """As a tracer's sitecustomize may do."""
    (tmp_path / "sitecustomize.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    ran = run_script(
        """
        from tests.backends.launching import answer, run
        print(run("forkserver", "leave", 5).exitcode)
        print(answer("forkserver", "look_around")["threads"])
        """,
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        flags=("-W", "error"),
    )
    assert ran.err == ""
    assert ran.out.split() == ["5", "2"]  # a fresh interpreter, with a thread of its own
