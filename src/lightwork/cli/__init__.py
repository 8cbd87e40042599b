"""The command ``lightwork``. It uses the package's public names only.

Workers import ``lightwork.cli.job``, and with it this file: so everything else waits until the
command is really run.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments `argv` (those of the process, if None).

    Returns the exit status: 0 all done, 1 some task failed, 2 wrong use, 130 interrupted, 143
    terminated, 141 the reader of the results went away. May call ``os._exit`` when it is
    interrupted and a thread of the user's cannot be ended.
    """
    from .entry import run

    return run(argv)
