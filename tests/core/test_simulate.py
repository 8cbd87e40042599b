"""The simulator runs, and the scheduler comes close to the best that can be had."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "simulate.py"


@pytest.fixture(scope="module")
def simulate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulate", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulate"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_command(simulate: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["--quick"]) == 0
    assert "memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("times", "seconds", "tasks", "workers", "chunked", "most"),
    [
        ("even", 1e-3, 4000, 2, False, 1.01),
        ("even", 1e-3, 4000, 2, True, 1.01),
        ("even", 20e-6, 20_000, 2, False, 1.04),
        ("even", 10e-3, 2000, 8, False, 1.03),
        ("heavy", 200e-6, 20_000, 2, False, 1.03),
        ("heavy", 5e-3, 5000, 20, False, 1.02),
        ("bimodal", 2e-3, 5000, 2, False, 1.05),
        ("bimodal", 200e-6, 20_000, 2, True, 1.04),
        ("one-last", 1e-3, 200, 2, False, 1.05),
        ("last", 1e-3, 10_000, 2, False, 1.02),
        ("sawtooth", 1e-3, 10_000, 8, False, 1.05),
    ],
)
def test_close_to_a_pool_that_hands_out_in_no_time(
    simulate: ModuleType,
    times: str,
    seconds: float,
    tasks: int,
    workers: int,
    chunked: bool,
    most: float,
) -> None:
    scenario = simulate.Scenario(
        times=times, seconds=seconds, tasks=tasks, workers=workers, chunked=chunked, start=0.0
    )
    outcome = simulate.Simulation(scenario).run()
    assert outcome.counts.done == tasks
    assert outcome.makespan <= outcome.greedy * most


def test_with_workers_that_die(simulate: ModuleType) -> None:
    scenario = simulate.Scenario(
        times="noisy", seconds=1e-3, tasks=5000, workers=10, failures=0.01, chunked=True
    )
    outcome = simulate.Simulation(scenario).run()
    assert outcome.counts.died > 20
    assert outcome.counts.retried == outcome.counts.died
    assert outcome.counts.done == 5000
    lost = outcome.lost / scenario.workers + outcome.counts.died / scenario.workers * scenario.start
    assert outcome.makespan <= 1.1 * outcome.greedy + lost + 2 * scenario.start
