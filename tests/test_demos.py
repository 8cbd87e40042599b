"""Every example that ``lightwork demo`` lists runs, and prints what it is to show."""

from __future__ import annotations

import ast
import re
import sys

import pytest

from lightwork import share
from lightwork.demos import DEMOS
from tests.scripts import ROOT, run_command

KINDS = ("threads", "processes")
FOLDER = ROOT / "src" / "lightwork" / "demos"


def on_both(*lines: str) -> str:
    """The pattern of what is printed for threads, and then in the same words for processes."""
    return "".join(f"{kind}: " + "".join(f"{one}\n" for one in lines) for kind in KINDS)


SHOWS: dict[str, str] = {
    "list-with-lock": r"""added   50,005,000
removed [\d,]+
left    [\d,]+ in \[9996, 9997, 9998, 9999, 10000\]
nothing was lost
""",
    "factorials": r"Factorial of 1 is 1\n(.*\n){8}Factorial of 10 is 3628800\n",
    "squares": r"""squares: 1 4 9 16 25 36 49 64 81 100

square: 10 calls, 3 rounds, \d+ cores

kind .*
in place .*
processes.* 2 .*
processes.* 4 .*
processes.* 8 .*

\(all results were as in place.*\)

processes: .*

Use .*

slow_square: 10 calls(.*\n)+Use .*
""",
    "primes": r"148,933 primes below 2,000,000\nin place .* s, \d+ processes .* s\n",
    "monte-carlo": r"pi is about 3\.14\d\d, from 2,000,000 darts\nin place the same\n",
    "scrape": r"""page 13: HTTP Error 500.*
59 pages, from 'Page 0' to 'Page 59'
\d+\.\d\d s, where one by one would take 3.0 s
run on threads
""",
    "split-apply-combine": r"(\w{4}: [\d ,]+ measurements, mean 5\d\.\d F\n){4}"
    r"198,\d{3} of 200,000 rows were fit for use\nat most [1-8] of 40 pieces were in memory\n",
    "sharing-lock": on_both("1000 of 1000, nothing was lost", r"    without the lock \d+ of 1000"),
    "sharing-rlock": on_both(
        r"\{'Ann': 100, 'Bob': 100\}", "    the money was always all there: True"
    ),
    "sharing-condition": on_both("0 1 2 0 1 2 0 1 2 0 1 2 - in turn"),
    "sharing-event": on_both("5 of 5 have read all 3 settings"),
    "sharing-semaphore": on_both("24 pages, 6 workers, at most [12] connected"),
    "sharing-barrier": on_both("as in one piece: True"),
    "sharing-queue": on_both("500 of 500 taken, each once"),
    "sharing-pipe": on_both("500 750 625 687 718 734 726 730 732 and 731: found, asking 10 times"),
    "sharing-list": on_both("250 jobs done, each once"),
    "sharing-dict": on_both("310 words, all counted", "    the 110 saw 60 bird 40"),
    "sharing-value": on_both(r"the best is 237, right, and was raised \d+ times"),
    "sharing-counter": on_both("80,000 of 80,000, and it only grew: True"),
    "sharing-array": on_both("1,280,000 bytes filled, all right"),
    "errors-in-thread": r"""handled inside: \[1, None, 3\]
left alone: invalid literal .* 'two'
""",
    "errors-to-caller": r"""caught: 120 degrees - 20 too many
note: lightwork: boil\(120\), index 0, attempt 1, worker \d
raised in boil: True
fine: 90
item 1 \(110\): 110 degrees
fine: 95
item 3 \(130\): 130 degrees
""",
    "errors-event": "".join(
        rf"""{kind}:
    searcher 0 was told to stop
    searcher 1 was told to stop
    the index is corrupt
    searcher 3 was told to stop
"""
        for kind in KINDS
    ),
    "errors-queue": on_both(
        "100 can be divided by 1 2 4",
        "    'three' was reported: ValueError",
        "    '0' was reported: ZeroDivisionError",
    ),
    "errors-callback": r"""callback: .*by zero
item 1: .*by zero
\[1.0, inf, 0.25\]
""",
    "errors-list": on_both(
        "roots 2.0 None 3.0 None",
        r"    by hand:     ValueError\('no root of -1'\) ValueError\('no root of -16'\)",
        r"    by the pool: ValueError\('no root of -1'\) ValueError\('no root of -16'\)",
    ),
    "errors-logging": "".join(
        rf"""{kind}:
(?=(?:.*\n)?(?:.*\n)?    INFO thumbnails, worker \d, task 0: a.png: done
)(?=(?:.*\n)?(?:.*\n)?    ERROR thumbnails, worker \d, task 1: notes.txt: not a picture
)(?=(?:.*\n)?(?:.*\n)?    INFO thumbnails, worker \d, task 2: b.png: done
)(?:.*\n){{3}}    made: a.small.png b.small.png
"""
        for kind in KINDS
    ),
    "errors-orderly-stop": on_both(
        "stopping: the disk is full",
        "    kept: 0 1 2 3 4 and the 2 that were running",
        "    cancelled: 92",
        "    workers left: 0",
    ),
    "errors-timeouts": r"""done: 0.01
ended after 1.0 s
done: 0.02
server answered at attempt 3
""",
}

NEEDS = {"sharing-array": "numpy"}
SLOW = {"source-files"}  # `make demo` runs it


def test_each_is_listed_and_described() -> None:
    files = {path.stem.replace("_", "-") for path in FOLDER.glob("*.py")} - {"--init--"}
    assert files == set(DEMOS)
    assert set(SHOWS) == set(DEMOS) - SLOW
    ran = run_command([sys.executable, "-m", "lightwork", "demo"])
    assert [line.split()[0] for line in ran.out.splitlines()] == list(DEMOS)


def test_each_tool_for_sharing_has_an_example_of_its_name() -> None:
    tools = {name.removeprefix("Bounded").lower() for name in share.__all__} - {"closed"}
    assert {f"sharing-{tool}" for tool in tools} == {one for one in DEMOS if "sharing" in one}


@pytest.mark.parametrize("name", sorted(SHOWS))
def test_it_shows_what_it_is_for(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    ran = run_command([sys.executable, "-m", "lightwork", "demo", name], timeout=100)
    assert ran.status == 0, ran.err
    assert re.fullmatch(SHOWS[name], ran.out), ran.out
    assert "Traceback" not in ran.err


def test_without_an_optional_part_it_says_what_to_install() -> None:
    code = """if True:
        import sys
        sys.modules["numpy"] = None
        from lightwork.cli import main
        sys.exit(main(["demo", "sharing-array"]))
    """
    ran = run_command([sys.executable, "-c", code])
    assert ran.status == 1
    assert ran.err == "lightwork: share.Array needs NumPy: pip install 'lightwork[numpy]'\n"


@pytest.mark.parametrize("name", sorted(DEMOS))
def test_it_is_an_example_worth_copying(name: str) -> None:
    """It says what to look at, uses public names only, and is short."""
    path = FOLDER / f"{name.replace('-', '_')}.py"
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    if name != "source-files":
        assert "Look at:" in (ast.get_docstring(tree) or "")
        assert len(source.splitlines()) <= 100
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert not node.level
            assert not node.module.startswith("lightwork.")
        elif isinstance(node, ast.Import):
            assert not any(one.name.startswith("lightwork.") for one in node.names)
    ran = run_command([sys.executable, "-m", "lightwork", "demo", name, "--source"])
    assert ran.out == source
