"""In which ways objects are shared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lightwork import Pool

WAYS = {
    "threads": ("threads", None),
    "forkserver": ("processes", "forkserver"),
    "spawn": ("processes", "spawn"),
    "fork": ("processes", "fork"),
}


@pytest.fixture(params=list(WAYS))
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    kind, method = WAYS[request.param]
    with Pool(kind, 2, start_method=method) as made:
        yield made
