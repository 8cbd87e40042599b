"""Errors logged in one place, whichever thread they come from.

Look at: one handler, one format with the thread's name, and the item that the pool has noted on the
exception. ``logging`` has its own lock, so lines of several threads do not mix.
"""

from __future__ import annotations

import logging
import sys

from lightwork import Pool

__all__ = ["main"]

log = logging.getLogger("thumbnails")


def shrink(name: str) -> str:
    """Log what is wrong here, where it is known best, and let the caller know, too."""
    if not name.endswith(".png"):
        log.warning("%s: not a picture", name)
        raise ValueError(name)
    log.info("%s: done", name)
    return name.replace(".png", ".small.png")


def main() -> None:
    """Set logging up once, then work."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        with Pool("threads", 1, name="shrinker") as pool:
            names = ["a.png", "notes.txt", "b.png"]
            print("made:", *pool.map(shrink, names, on_error="skip"))
    finally:
        log.removeHandler(handler)


if __name__ == "__main__":
    main()
