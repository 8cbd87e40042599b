"""Drivers of process backends, closed after the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lightwork.backends.base import WorkerOptions
from lightwork.backends.processes import ProcessBackend
from tests.backends.driver import Driver


@pytest.fixture
def make_driver() -> Iterator[Callable[..., Driver]]:
    """Make a driver with these fields of WorkerOptions."""
    drivers: list[Driver] = []

    def make(**options: Any) -> Driver:
        driver = Driver(ProcessBackend(), WorkerOptions(**{"max_workers": 2, **options}))
        drivers.append(driver)
        return driver

    yield make
    for driver in drivers:
        driver.close()


@pytest.fixture
def driver(make_driver: Callable[..., Driver]) -> Driver:
    """One with default options."""
    return make_driver()


@pytest.fixture
def worker(driver: Driver) -> int:
    """A worker of `driver`."""
    return driver.start()[0]
