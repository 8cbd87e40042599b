"""For all tests: nothing may be left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.leaks import Snapshot, left_behind

# No test is timed: a busy machine is no bug of ours.
settings.register_profile("lightwork", deadline=None)
settings.load_profile("lightwork")


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a thread, process, descriptor or shared-memory file behind.

    Set up first, so torn down last: what a test's other fixtures hold is given back by then.
    """
    before = Snapshot.take()
    yield
    mark = request.node.get_closest_marker("leaves")
    if left := left_behind(before, but=mark.args if mark is not None else ()):
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)
