"""How far a map with a checkpoint is ahead of its consumer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from lightwork import Pool


def test_what_is_ahead_of_the_results_is_bounded(tmp_path: Path) -> None:
    """Each item ahead holds memory, and calls as short as these ask for a wide window."""
    read = 0

    def items() -> Iterator[int]:
        nonlocal read
        for number in itertools.count(1):
            read = number
            yield number

    with Pool("threads", 2) as pool:
        results = pool.map(abs, items(), checkpoint=tmp_path / "run.db")
        ahead = []
        for taken, result in enumerate(itertools.islice(results, 40_000), 1):
            assert result == taken
            ahead.append(read - taken)
        results.close()
    assert max(ahead) < 40_000  # the window, and what came in one piece
