"""The command from outside, as a shell runs it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import Ran, environment, run_command

KINDS = ("processes", "threads", "serial")

TOOLS = """
import os, sys, time

print("imported")  # as scripts do; must not get between the results

class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")

def double(x):
    return 2 * x

def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)

def noisy(x):
    print("working on", x, flush=True)
    return x

def fails_on_odd(x):
    if x % 2:
        raise Odd(x, "odd")
    return x

def later(seconds):
    time.sleep(seconds)
    return seconds

def first_is_slow(x):
    time.sleep(0.5 if x == 0 else 0.0)
    return x

def dies(x):
    if x == 3:
        os.kill(os.getpid(), 9)
    return x

def flaky(path):
    tries = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(tries, b"x")
    if os.fstat(tries).st_size < 3:
        raise OSError("not yet")
    return os.fstat(tries).st_size

def whatever(x):
    return {"number": 1, "object": object() if x == 1 else None}

def named(a, b=0):
    return [a, b]

class Tool:
    @staticmethod
    def method(x):
        return -x
"""


@pytest.fixture
def tools(tmp_path: Path) -> str:
    """The path of a file of functions."""
    path = tmp_path / "tools.py"
    path.write_text(TOOLS)
    return str(path)


def lightwork(*words: str, **options: Any) -> Ran:
    return run_command([sys.executable, "-m", "lightwork", *words], **options)


def results(ran: Ran, status: int = 0) -> list[dict[str, Any]]:
    assert ran.status == status, ran
    assert "lightwork/cli" not in ran.err, "a traceback of ours"
    return [json.loads(line) for line in ran.out.splitlines()]


def refused(*words: str, **options: Any) -> str:
    """The message of a command that is wrong use: one short paragraph, nothing else."""
    ran = lightwork(*words, **options)
    assert ran.status == 2, ran
    assert ran.out == ""
    assert ran.err.startswith("lightwork: ")
    assert "Traceback" not in ran.err
    return ran.err


@pytest.mark.parametrize("kind", KINDS)
def test_items_of_the_command_line(kind: str, tools: str) -> None:
    ran = lightwork("map", f"{tools}:double", "1", "--kind", kind, "1.5", "-3", "ab")
    assert results(ran) == [
        {"index": 0, "item": 1, "result": 2},
        {"index": 1, "item": 1.5, "result": 3.0},
        {"index": 2, "item": -3, "result": -6},
        {"index": 3, "item": "ab", "result": "abab"},
    ]
    assert "lightwork: 4 done in " in ran.err


def test_without_a_kind(tools: str) -> None:
    found = results(lightwork("map", "math:factorial", "--range", "1:11"))
    assert found[-1] == {"index": 9, "item": 10, "result": 3628800}


@pytest.mark.parametrize("kind", KINDS)
def test_many_items_in_order(kind: str) -> None:
    found = results(lightwork("map", "math:sqrt", "--range", "0:20000", "--kind", kind, "--quiet"))
    assert [one["item"] for one in found] == list(range(20000))
    assert [one["index"] for one in found] == list(range(20000))
    assert [one["result"] for one in found] == [math.sqrt(one) for one in range(20000)]


@pytest.mark.parametrize("kind", KINDS)
def test_failures_are_reported_in_their_place(kind: str, tools: str) -> None:
    ran = lightwork("map", f"{tools}:fails_on_odd", "--range", "0:4", "--kind", kind)
    found = results(ran, 1)
    assert [one["index"] for one in found] == [0, 1, 2, 3]
    assert [one.get("result") for one in found] == [0, None, 2, None]
    error = found[3]["error"]
    assert error["type"] == "tools.Odd"
    assert error["message"] == "3 and odd"
    assert error["attempts"] == 1
    assert "in fails_on_odd" in error["traceback"]
    assert "lightwork" not in error["traceback"].replace("lightwork: ", "")
    assert "item 3: tools.Odd: 3 and odd" in ran.err
    assert "2 done, 2 failed in " in ran.err


def test_skip(tools: str) -> None:
    ran = lightwork("map", f"{tools}:fails_on_odd", "--range", "0:5", "--on-error", "skip")
    assert [one["item"] for one in results(ran, 1)] == [0, 2, 4]
    assert "3 done, 2 failed" in ran.err


@pytest.mark.parametrize("kind", KINDS)
def test_raise_ends_an_endless_run(kind: str, tools: str) -> None:
    ran = lightwork(
        "map", f"{tools}:fails_on_odd", "--range", "0:" + "9" * 30, "--on-error", "raise",
        "--kind", kind, timeout=60,
    )  # fmt: skip
    found = results(ran, 1)
    assert found[0] == {"index": 0, "item": 0, "result": 0}
    assert "error" in found[1]
    assert "in fails_on_odd" in ran.err
    assert "stopped at the first failure" in ran.err


def test_a_worker_that_dies_costs_its_item_only(tools: str) -> None:
    found = results(lightwork("map", f"{tools}:dies", "--range", "0:8", "--kind", "processes"), 1)
    assert [one.get("result") for one in found] == [0, 1, 2, None, 4, 5, 6, 7]
    assert found[3]["error"]["type"] == "lightwork.errors.WorkerCrashed"
    assert found[3]["error"]["signal"] == "SIGKILL"


def test_time_limits(tools: str) -> None:
    found = results(lightwork("map", f"{tools}:later", "0", "600", "0.01", "--timeout", "0.5"), 1)
    assert [one.get("result") for one in found] == [0, None, 0.01]
    assert found[1]["error"]["type"] == "lightwork.errors.TaskTimeout"
    assert found[1]["error"]["timeout"] == 0.5


def test_retries(tools: str, tmp_path: Path) -> None:
    path = str(tmp_path / "tries")
    (one,) = results(lightwork("map", f"{tools}:flaky", path, "--retries", "2"))
    assert one["result"] == 3
    path = str(tmp_path / "fewer")
    (one,) = results(lightwork("map", f"{tools}:flaky", path, "--retries", "1"), 1)
    assert one["error"]["attempts"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_that_is_not_json_is_a_failure_of_its_item(kind: str, tools: str) -> None:
    ran = lightwork("map", f"{tools}:whatever", "0", "1", "--kind", kind, "--retries", "3")
    good, bad = results(ran, 1)
    assert good["result"] == {"number": 1, "object": None}
    assert bad["item"] == 1
    assert bad["error"]["type"] == "TypeError"
    assert "the result['object'] is of type object" in bad["error"]["message"]
    assert bad["error"]["attempts"] == 4  # as any failure


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_printed_goes_to_standard_error(kind: str, tools: str) -> None:
    ran = lightwork("map", f"{tools}:noisy", "7", "--kind", kind)
    assert results(ran) == [{"index": 0, "item": 7, "result": 7}]
    assert "imported" in ran.err
    assert "working on 7" in ran.err


def test_methods(tools: str) -> None:
    assert results(lightwork("map", f"{tools}:Tool.method", "5"))[0]["result"] == -5


def test_star(tools: str) -> None:
    ran = lightwork("map", f"{tools}:named", "--star", "[1]", "[2, 3]", '{"b": 4, "a": 5}')
    assert [one["result"] for one in results(ran)] == [[1, 0], [2, 3], [5, 4]]
    assert [one["item"] for one in results(ran)] == [[1], [2, 3], {"b": 4, "a": 5}]


def test_unordered(tools: str) -> None:
    ran = lightwork("map", f"{tools}:first_is_slow", "0", "1", "2", "--unordered", "--workers", "2")
    assert [one["index"] for one in results(ran)] == [1, 2, 0]


def test_lines_and_jsonl(tools: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\n1\n")
    found = results(lightwork("map", f"{tools}:double", "--lines", "in", cwd=tmp_path))
    assert [one["result"] for one in found] == ["aa", "11"]
    found = results(lightwork("map", f"{tools}:double", "--jsonl", "-", stdin='"a"\n1\n[2]'))
    assert [one["result"] for one in found] == ["aa", 2, [2, 2]]


@pytest.mark.parametrize("words", [("--range", "0:0"), ("--lines", "/dev/null"), ("--jsonl", "-")])
def test_nothing_to_do_is_done(words: Sequence[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = lightwork("map", "math:sqrt", *words, "-o", str(out), stdin="")
    assert results(ran) == []
    assert out.read_text() == ""
    assert "0 done in" in ran.err


def test_a_file_of_results(tools: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("old\n" * 100)
    ran = lightwork("map", f"{tools}:double", "--range", "0:3", "-o", str(out))
    assert ran.out.startswith("imported\n")  # nothing else wants standard output now
    assert out.read_text().splitlines()[2] == '{"index": 2, "item": 2, "result": 4}'


def test_an_early_error_leaves_the_last_results_alone(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("old\n")
    refused("map", "math:nosuch", "1", "-o", str(out))
    refused("map", "math:sqrt", "--jsonl", "/nosuch", "-o", str(out))
    refused("map", "math:sqrt", "1", "--kind", "nosuch", "-o", str(out))
    assert out.read_text() == "old\n"
    refused("map", "math:sqrt", "1", "--kind", "nosuch", "-o", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_an_output_that_cannot_be_written_is_found_before_work_starts(
    tools: str, tmp_path: Path
) -> None:
    ran = lightwork("map", f"{tools}:noisy", "1", "-o", str(tmp_path / "nosuch" / "out"))
    assert ran.status == 2
    assert "cannot write" in ran.err
    assert "imported" not in ran.err + ran.out


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(tools: str) -> None:
    ran = lightwork("map", f"{tools}:double", "--range", "0:100", "-o", "/dev/full")
    assert ran.status == 1
    assert "cannot write /dev/full: No space left on device" in ran.err
    assert "Traceback" not in ran.err


def test_bad_input_behind_good(tools: str) -> None:
    ran = lightwork("map", f"{tools}:double", "--jsonl", "-", stdin="1\n2\n{\n4\n")
    assert [one["result"] for one in results(ran, 2)] == [2, 4]
    assert "standard input, line 3: not JSON" in ran.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0", "1"], "--workers: expected a whole number of at least 1, not '0'"),
        (["--workers", "-1", "1"], "--workers: expected a whole number of at least 1, not '-1'"),
        (["--workers", "four", "1"], "expected a whole number of at least 1, not 'four'"),
        (["--timeout", "0", "1"], "expected a number of seconds greater than 0, not '0'"),
        (["--timeout", "nan", "1"], "expected a number of seconds greater than 0, not 'nan'"),
        (["--retries", "x", "1"], "expected a whole number of at least 0, not 'x'"),
        (["--kind", "fibres", "1"], "'fibres'"),
        (["--on-error", "explode", "1"], "'explode'"),
        (["--nonsense", "1"], "--nonsense"),
        ([], "exactly one of"),
        (["1", "--range", "0:1"], "not items on the command line and --range"),
        (["--range", "0:1", "--lines", "x"], "not --range and --lines"),
        (["--range", "0-5"], "A:B"),
        (["--star", "--range", "0:5"], "use --jsonl"),
        (["--lines", "/no/such/file"], "cannot read '/no/such/file': No such file"),
    ],
)
def test_wrong_use(words: list[str], message: str) -> None:
    assert message in refused("map", "math:sqrt", *words)


def test_an_unknown_kind_names_the_known_ones() -> None:
    message = refused("map", "math:sqrt", "--kind", "fibres", "1")
    for kind in KINDS:
        assert kind in message


def test_wrong_commands() -> None:
    assert "there is: map" in refused("pam")
    assert "COMMAND" in refused()
    assert "TARGET" in refused("map")


def test_help_and_version() -> None:
    ran = lightwork("--version")
    assert (ran.status, ran.out) == (0, "lightwork 0.1.0\n")
    ran = lightwork("map", "--help")
    assert ran.status == 0
    assert "exit status: 0 all done" in ran.out
    assert ran.err == ""


def test_quiet(tools: str) -> None:
    ran = lightwork("map", f"{tools}:fails_on_odd", "1", "2", "--quiet", "--kind", "threads")
    assert len(results(ran, 1)) == 2
    assert ran.err == "imported\n"


def test_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"caf\xe9\n\xc3\xa9\n")
    ran = lightwork("map", "builtins:len", "--lines", "in", cwd=tmp_path)
    assert [one["item"] for one in results(ran)] == ["caf\udce9", "é"]


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lightwork", "map", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        **options,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_results_come_while_the_next_item_is_not_there(kind: str, tools: str) -> None:
    with start(f"{tools}:double", "--jsonl", "-", "--kind", kind) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(5):
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            line = json.loads(process.stdout.readline())
            assert line == {"index": number, "item": number, "result": 2 * number}
        out, _ = process.communicate("7\n8\n", timeout=60)
        assert [json.loads(line)["result"] for line in out.splitlines()] == [14, 16]
        assert process.returncode == 0


def test_a_slow_item_of_a_pipe_holds_no_other_back(tools: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with start(f"{tools}:wait_for", "--lines", "-", "--unordered", "--workers", "2") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{gate}\n")
        process.stdin.flush()
        time.sleep(0.3)  # so that the next one comes by itself
        process.stdin.write(f"{tmp_path}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["index"] == 1
        gate.touch()
        out, _ = process.communicate(timeout=60)
        assert json.loads(out)["index"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_reader_may_go_away(kind: str, tools: str) -> None:
    with start("math:sqrt", "--range", "0:" + "9" * 20, "--kind", kind) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["index"] == 0
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141


def test_help_into_a_closed_pipe() -> None:
    ran = run_command(
        ["bash", "-c", f"{sys.executable} -m lightwork map --help | true; echo ${{PIPESTATUS[0]}}"]
    )
    assert ran.err == ""
    assert ran.out.strip() in ("0", "141")


def test_the_command_starts_quickly() -> None:
    """Nothing heavy is loaded to refuse a command: counted in modules, not in seconds."""
    code = (
        "import sys; from lightwork.cli import main; status = main(['map', 'math:sqrt']);"
        "print(status, *sorted(set(sys.modules) & {'multiprocessing', 'asyncio', 'numpy', 'tqdm',"
        "'concurrent.futures', 'sqlite3', 'logging', 'subprocess', 'cloudpickle'}))"
    )
    ran = run_command([sys.executable, "-S", "-c", code])
    assert ran.out.strip() == "2"
