"""The benchmarks' programs run, and find right results; nothing is timed here."""

from __future__ import annotations

import sys

import pytest

from tests.scripts import ROOT, run_command


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    ["compare.py", "share.py", "choose.py", "observe.py", "probe.py", "guide.py"],
)
def test_a_benchmark_runs(program: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / program), "--quick"]
    ran = run_command(command, timeout=110)
    assert ran.status == 0, ran.out + ran.err
