"""Errors logged in one place, whichever thread or process they come from.

Look at: one handler, set up once, here. Nothing is set up in the workers; the filter puts the
worker and the task into each line, so that it can be told who had which trouble.
"""

from __future__ import annotations

import logging
import sys

from lightwork import Pool, TaskFilter

__all__ = ["main", "shrink"]

log = logging.getLogger("thumbnails")


def shrink(name: str) -> str:
    """Log what is wrong here, where it is known best, and let the caller know, too."""
    if not name.endswith(".png"):
        log.error("%s: not a picture", name)
        raise ValueError(name)
    log.info("%s: done", name)
    return name.replace(".png", ".small.png")


def main() -> None:
    """Set logging up, then work."""
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(TaskFilter())
    line = "    %(levelname)s %(name)s, worker %(worker)s, task %(task)s: %(message)s"
    handler.setFormatter(logging.Formatter(line))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        for kind in ("threads", "processes"):
            print(f"{kind}:")
            with Pool(kind, 2) as pool:
                made = list(pool.map(shrink, ["a.png", "notes.txt", "b.png"], on_error="skip"))
            print("    made:", *made)
    finally:
        log.removeHandler(handler)


if __name__ == "__main__":
    main()
