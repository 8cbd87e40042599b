"""One contract, many kinds: fixtures that run a test for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .pools import EVERY_KIND, KINDS, START_METHODS, Gate


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Threads, in place, and processes started the usual way."""
    return str(request.param)


@pytest.fixture(params=EVERY_KIND)
def every_kind(request: pytest.FixtureRequest) -> str:
    """As `kind`, and processes by each start method: for what workers do when they start."""
    return str(request.param)


@pytest.fixture(params=("threads", "forkserver"))
def parallel_kind(request: pytest.FixtureRequest) -> str:
    """The kinds that run tasks beside the caller."""
    return str(request.param)


@pytest.fixture(params=START_METHODS)
def start_method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate that is open at the end at the latest, so that no failed test hangs."""
    one = Gate(tmp_path)
    yield one
    one.open()
