"""The benchmarks' programs run, and find right results; nothing is timed here."""

from __future__ import annotations

import sys

import pytest

from tests.scripts import ROOT, run_command


@pytest.mark.slow
@pytest.mark.parametrize("words", [["compare.py", "--quick"], ["observe.py", "--quick"]])
def test_a_benchmark_runs(words: list[str]) -> None:
    program, *options = words
    ran = run_command([sys.executable, str(ROOT / "benchmarks" / program), *options], timeout=110)
    assert ran.status == 0, ran.out + ran.err
