"""Workers of programs as people start them: without a main guard, from stdin, with options."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import ROOT, environment, run_script

from .launching import METHODS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX processes")
every_method = pytest.mark.parametrize("method", METHODS)
HERE = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}

PROGRAM = """
    import sys
    print("the program runs")
    from tests.backends.launching import answer
    for _ in range(2):
        seen = answer(sys.argv[1], "look_around")
        print(seen["main"], seen["main file"], seen["argv"][1:], seen["stdin"] == "")
"""


@every_method
@pytest.mark.parametrize("how", ["file", "-c", "stdin"])
def test_the_script_is_not_run_again(method: str, how: str) -> None:
    ran = run_script(PROGRAM, how=how, args=[method, "more"], env=HERE)
    assert ran.err == ""
    assert ran.out.splitlines() == [
        "the program runs",
        *[f"[] None ['{method}', 'more'] True"] * 2,
    ]


@every_method
@pytest.mark.parametrize(
    "flags", [("-I",), ("-O", "-B"), ("-X", "dev"), ("-W", "error"), ("-s", "-P"), ("-u",)]
)
def test_options_of_the_interpreter(method: str, flags: tuple[str, ...]) -> None:
    ran = run_script(
        f"""
        import sys
        sys.path[:0] = {[str(ROOT / "src"), str(ROOT)]}
        from tests.backends.launching import run
        print(run({method!r}, "leave", 5).exitcode)
        """,
        flags=flags,
        env=HERE,
    )
    assert (ran.out.split(), ran.err) == (["5"], "")


@every_method
def test_a_search_path_that_only_the_program_knows(method: str, tmp_path: Path) -> None:
    """No PYTHONPATH: the package itself is found by what the program did to sys.path."""
    program = (
        f"import sys; sys.path[:0] = {[str(ROOT / 'src'), str(ROOT)]}\n"
        "from tests.backends.launching import run\n"
        f"print(run({method!r}, 'leave', 5).exitcode)"
    )
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
        ],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout.split(), ran.stderr) == (["5"], "")


@every_method
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_standard_descriptors_that_are_closed(
    method: str, closed: tuple[int, ...], tmp_path: Path
) -> None:
    program = f"""if True:
        import os
        for fd in {closed}:
            os.close(fd)
        from tests.backends.launching import answer, run
        codes = [run({method!r}, "leave", 5).exitcode for _ in range(3)]
        seen = answer({method!r}, "look_around")
        os._exit(codes == [5, 5, 5] and seen["stdin"] == "")
    """
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(HERE),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (1, "")


@every_method
def test_output_goes_where_the_parents_goes_now(method: str, tmp_path: Path) -> None:
    """Not where it went when the server was started; and nothing is written twice."""
    ran = run_script(
        f"""
        import os, sys
        from tests.backends.launching import Talker, of, run
        print("waits in a buffer")
        def tidy():
            with of({method!r}) as one:
                talker = Talker(one, "tidy")
                talker.hear(), talker.hear()
                talker.end()
        tidy()
        sys.stdout.flush()
        to = os.open({str(tmp_path / "out")!r}, os.O_WRONLY | os.O_CREAT)
        os.dup2(to, 1)
        tidy()
        """,
        env=HERE,
    )
    assert ran.err == ""
    assert ran.out.count("waits in a buffer") == 1
    assert ran.out.count("buffered") == 1
    assert (tmp_path / "out").read_text() == "buffered"


@every_method
def test_the_pipe_of_a_program_ends_with_it(method: str) -> None:
    """Nobody of ours holds the output of a program that is over: its reader is not kept waiting."""
    ran = run_script(
        f"""
        from tests.backends.launching import Talker, launcher
        talker = Talker(launcher({method!r}), "hang")
        talker.hear()
        print("over", flush=True)
        """,
        env=HERE,
        timeout=20,
    )
    assert (ran.out, ran.err) == ("over\n", "") or "ResourceWarning" in ran.err


def test_an_executable_that_is_not_known() -> None:
    ran = run_script(
        """
        import sys
        sys.executable = ""
        from tests.backends.launching import run
        try:
            run(None, "nothing")
        except OSError as error:
            print(error.strerror)
        """,
        env=HERE,
    )
    assert "sys.executable" in ran.out


def test_an_executable_that_does_not_work() -> None:
    """Every launch ends; none hangs."""
    ran = run_script(
        """
        import sys
        from tests.backends.launching import run
        for sys.executable in ("/bin/false", "/no/such/file", "/bin/false"):
            try:
                print(run(None, "nothing").exitcode)
            except OSError as error:
                print(type(error).__name__)
        """,
        env=HERE,
    )
    assert set(ran.out.split()) <= {"None", "OSError", "BrokenPipeError", "FileNotFoundError"}
    assert len(ran.out.split()) == 3


def test_a_program_in_a_folder_that_is_removed(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    ran = run_script(
        f"""
        import os
        os.chdir({str(tmp_path / "gone")!r})
        os.rmdir(os.getcwd())
        import subprocess, sys
        plain = subprocess.run([sys.executable, "-c", "import socket"], stderr=subprocess.DEVNULL)
        if plain.returncode:
            sys.exit(77)
        from tests.backends.launching import run
        for method in ("forkserver", "spawn", "fork"):
            print(run(method, "leave", 5).exitcode)
        """,
        env=HERE,
    )
    if ran.status == 77:
        pytest.skip("this interpreter cannot import `socket` in such a folder (3.13.0)")
    assert ran.out.split() == ["5", "5", "5"], ran.err
