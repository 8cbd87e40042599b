"""`Closed`: the end of a queue or a pipe."""

from __future__ import annotations

import queue
import sys

from ..errors import LightworkError

__all__ = ["Closed"]

if sys.version_info >= (3, 13):

    class _End(queue.ShutDown, ValueError):
        pass

else:
    _End = ValueError


class Closed(LightworkError, _End):
    """The queue was closed: nothing can be put any more, or there is nothing left to get.

    Also a ValueError, which `multiprocessing.Queue` raises, and from Python 3.13 on a
    `queue.ShutDown`. Its sibling ``queue.Empty`` means: nothing is there *yet*.
    """
