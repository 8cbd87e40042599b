"""``lightwork map`` that carries on: --checkpoint, --resume, --restart, --failed, --again, ..."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import Ran, environment, run_command

TOOLS = """
import os
def square(x):
    with open("ran", "a") as log:
        log.write(f"{x}\\n")
    if os.path.exists(f"bad-{x}"):
        raise ValueError(f"bad {x}")
    return x * x
def text(x):
    return len(x)
def odd(x):
    square(x)
    return {"value": 1j if x == 1 else x}
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "tools.py").write_text(TOOLS)
    return tmp_path


def lightwork(here: Path, *words: str, stdin: str | None = None) -> Ran:
    return run_command([sys.executable, "-m", "lightwork", *words], cwd=here, stdin=stdin)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ran(here: Path) -> list[int]:
    """Items that ran since the last question."""
    log = here / "ran"
    found = sorted(map(int, log.read_text().split())) if log.exists() else []
    log.unlink(missing_ok=True)
    return found


@pytest.mark.parametrize("kind", ("processes", "threads", "serial"))
def test_resume_runs_what_is_missing(kind: str, here: Path) -> None:
    words = ["map", "tools.py:square", "--range", "0:20", "-o", "out", "--resume", "--kind", kind]
    (here / "bad-7").touch()
    first = lightwork(here, *words)
    assert first.status == 1
    assert ran(here) == list(range(20))
    assert "error" in lines(here / "out")[7]
    (here / "bad-7").unlink()
    second = lightwork(here, *words)
    assert second.status == 0, second
    assert "carrying on: 19 done before, 1 failed and will be tried again" in second.err
    assert ran(here) == [7]
    assert [one["result"] for one in lines(here / "out")] == [n * n for n in range(20)]
    third = lightwork(here, *words, "--quiet")
    assert (third.status, third.err) == (0, "")
    assert not ran(here)


def test_a_result_that_is_not_json_is_tried_again_as_any_failure(here: Path) -> None:
    words = ["map", "tools.py:odd", "0", "1", "2", "-o", "out", "--resume", "--quiet"]
    for wanted in ([0, 1, 2], [1]):
        assert lightwork(here, *words).status == 1
        assert ran(here) == wanted
        error = lines(here / "out")[1]["error"]
        assert error["type"] == "TypeError"
        assert "the result['value'] is of type complex" in error["message"]
        assert "--default str" in error["message"]
    # What had finished is not called into question by the new option.
    last = lightwork(here, *words, "--default", "str")
    assert (last.status, last.err) == (0, "")
    assert ran(here) == [1]
    assert [one["result"]["value"] for one in lines(here / "out")] == [0, "1j", 2]
    assert lightwork(here, *words).status == 0
    assert not ran(here)


def test_restart_forgets(here: Path) -> None:
    words = ["map", "tools.py:square", "1", "2", "--checkpoint", "run.db", "--quiet"]
    assert lightwork(here, *words).out == lightwork(here, *words).out
    assert ran(here) == [1, 2]
    assert lightwork(here, *words, "--restart").status == 0
    assert ran(here) == [1, 2]


def test_another_function_or_other_items_are_wrong_use(here: Path) -> None:
    words = ["--checkpoint", "run.db", "--quiet"]
    assert lightwork(here, "map", "tools.py:square", "1", "2", *words).status == 0
    other = lightwork(here, "map", "tools.py:text", "1", "2", *words)
    assert other.status == 2
    assert "(tools:square then, tools:text now)" in other.err
    changed = lightwork(here, "map", "tools.py:square", "1", "3", *words)
    assert changed.status == 2
    assert "is of other items: number 1" in changed.err
    fewer = lightwork(here, "map", "tools.py:square", "1", *words)
    assert fewer.status == 2
    assert "goes on behind the last item, 0" in fewer.err
    more = lightwork(here, "map", "tools.py:square", "1", "2", "3", *words)
    assert more.status == 0
    (here / "tools.py").write_text(TOOLS.replace("x * x", "x + x"))
    edited = lightwork(here, "map", "tools.py:square", "1", "2", *words)
    assert edited.status == 2
    assert "the function has changed since" in edited.err
    assert "Traceback" not in other.err + changed.err + fewer.err + edited.err


def test_a_damaged_checkpoint_is_wrong_use_and_results_stay(here: Path) -> None:
    (here / "out").write_text("precious\n")
    (here / "run.db").write_bytes(b"nonsense" * 100)
    found = lightwork(here, "map", "tools.py:square", "1", "-o", "out", "--checkpoint", "run.db")
    assert found.status == 2
    assert "is damaged" in found.err
    assert (here / "out").read_text() == "precious\n"
    assert (here / "run.db").read_bytes() == b"nonsense" * 100


def test_half_a_line_is_written_anew(here: Path) -> None:
    words = ["map", "tools.py:square", "--range", "0:9", "-o", "out", "--resume", "--quiet"]
    assert lightwork(here, *words).status == 0
    whole = (here / "out").read_bytes()
    for spoilt in (whole[:-5], whole[:100], whole + b"more\n", b"", b"other\n" + whole, whole):
        (here / "out").write_bytes(spoilt)
        assert lightwork(here, *words).status == 0
        assert (here / "out").read_bytes() == whole
    assert len(ran(here)) == 9


def test_unordered_results_come_from_a_checkpoint_too(here: Path) -> None:
    words = ["map", "tools.py:square", "--range", "0:50", "-o", "out", "--resume", "--unordered"]
    for _ in range(2):
        assert lightwork(here, *words).status == 0
        assert sorted(one["index"] for one in lines(here / "out")) == list(range(50))
    assert len(ran(here)) == 50


def test_items_of_a_pipe(here: Path) -> None:
    words = ["map", "tools.py:square", "--jsonl", "-", "--checkpoint", "run.db", "--quiet"]
    text = "".join(f"{n}\n" for n in range(300))
    first = lightwork(here, *words, stdin=text)
    assert first.status == 0
    assert len(ran(here)) == 300
    second = lightwork(here, *words, stdin=text + "300\n")
    assert second.out.startswith(first.out)
    assert ran(here) == [300]


def test_failures_go_to_a_file_that_can_be_fed_in_again(here: Path) -> None:
    for bad in (3, 5):
        (here / f"bad-{bad}").touch()
    words = ["map", "tools.py:square", "--range", "0:8", "-o", "out", "--failed", "failed"]
    assert lightwork(here, *words, "--on-error", "skip").status == 1
    failed = {one["index"]: one["error"] for one in lines(here / "failed")}
    assert sorted(failed) == [3, 5]
    assert failed[3]["message"] == "bad 3"
    assert len(lines(here / "out")) == 6
    (here / "bad-3").unlink()
    ran(here)
    again = lightwork(here, "map", "tools.py:square", "--again", "failed", "--failed", "more")
    assert again.status == 1
    assert ran(here) == [3, 5]
    found = [json.loads(line) for line in again.out.splitlines()]
    assert [one["result"] for one in found if "result" in one] == [9]
    assert [one["item"] for one in lines(here / "more")] == [5]
    (here / "bad-5").unlink()
    # Results serve as well: only what failed is taken.
    last = lightwork(here, "map", "tools.py:square", "--again", "-", stdin=again.out)
    assert [json.loads(one)["item"] for one in last.out.splitlines()] == [5]
    assert lightwork(here, *words).status == 0
    assert (here / "failed").read_text() == ""


def test_again_takes_only_results(here: Path) -> None:
    (here / "odd").write_text('{"index": 0, "item": 1, "error": {}}\n[2]\n')
    found = lightwork(here, "map", "tools.py:square", "--again", "odd", "--quiet")
    assert found.status == 2
    assert "odd, line 2: no result of this command" in found.err
    assert len(found.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resume"], "name that with -o"),
        (["--resume", "-o", "out", "--checkpoint", "x"], "give one of them"),
        (["--restart"], "--restart is about a checkpoint"),
        (["-o", "out", "--checkpoint", "./out"], "the same file as that of -o"),
        (["-o", "out", "--failed", "out"], "the same file as that of -o"),
        (["--jsonl", "tools.py", "--failed", "tools.py"], "the items are read from"),
        (["--checkpoint", "."], "is no file"),
    ],
)
def test_files_that_do_not_fit(words: list[str], said: str, here: Path) -> None:
    items = [] if "--jsonl" in words else ["1"]
    found = lightwork(here, "map", "tools.py:square", *items, *words)
    assert found.status == 2
    assert said in found.err
    assert not (here / "out").exists()
    assert not ran(here)


def test_dry_run_tells_and_does_nothing(here: Path) -> None:
    before = sorted(os.listdir(here))
    words = ["map", "tools.py:square", "--range", "0:1000000", "-o", "out", "--resume", "--dry-run"]
    found = lightwork(here, *words, "--workers", "3", "--failed", "failed")
    assert (found.status, found.out) == (0, "")
    assert "would call tools.py:square (square(x))" in found.err
    assert "on 1,000,000 items: 0, 1, 2, ..." in found.err
    assert "with 3 workers at most, kind auto" in found.err
    assert "results to out, in order\n" in found.err
    assert "the checkpoint out.checkpoint would be made" in found.err
    after = [name for name in sorted(os.listdir(here)) if name != "__pycache__"]
    assert after == before
    live = lightwork(here, "map", "tools.py:square", "--lines", "-", "--dry-run", stdin="a\n")
    assert "as it comes (not read now)" in live.err
    wrong = lightwork(here, "map", "tools.py:squares", "1", "--dry-run")
    assert wrong.status == 2


@pytest.mark.parametrize("words", ([], ["--checkpoint", "run.db"]))
def test_a_reader_that_goes_away_ends_it(words: list[str], here: Path) -> None:
    """``| head``: no traceback, nothing left, and the checkpoint has what was written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lightwork", "map", "math:sqrt", "--range", "0:100000000", *words],
        cwd=here,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        read = [json.loads(process.stdout.readline())["index"] for _ in range(10)]
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 141
    assert read == list(range(10))
    if words:
        again = lightwork(here, "map", "math:sqrt", "--range", "0:10", *words)
        assert "carrying on" in again.err


def test_a_full_disk_leaves_no_half_line(here: Path) -> None:
    script = (
        "import resource, sys; from lightwork.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["map", "math:sqrt", "--range", "0:10000", "-o", "out", "--kind", "serial"]
    found = run_command([sys.executable, "-c", script, *words], cwd=here)
    assert found.status == 1
    assert "cannot write out: File too large" in found.err
    text = (here / "out").read_text()
    assert text.endswith("}\n")
    assert 9_900 < len(text) <= 10_000
    assert [one["index"] for one in lines(here / "out")] == list(range(text.count("\n")))
