"""A short form of the soak with random kills (`make soak` runs minutes of it)."""

from __future__ import annotations

import sys

import pytest

from tests.scripts import ROOT, run_command


@pytest.mark.slow
def test_a_short_soak() -> None:
    program = str(ROOT / "benchmarks" / "soak_share.py")
    ran = run_command([sys.executable, program, "--minutes", "0.15"], timeout=110)
    assert ran.status == 0, ran.out + ran.err
