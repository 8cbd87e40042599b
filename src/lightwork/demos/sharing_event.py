"""An Event: tell all who wait for it, at once, that something has happened.

Look at: the workers are there before the settings are, which come one by one. None of them reads
any before the last one is written; one ``set`` wakes them all. Who comes later does not wait.
"""

from __future__ import annotations

import time
from typing import Any

from lightwork import Pool, share

__all__ = ["main", "read"]

SETTINGS = {"host": "localhost", "port": 8080, "user": "ann"}


def read(ready: share.Event, settings: share.Dict) -> dict[str, Any]:
    """The settings, as soon as they are there."""
    ready.wait()
    return dict(settings.items())


def main() -> None:
    """Let four wait, then tell them."""
    for kind in ("threads", "processes"):
        ready, settings = share.Event(), share.Dict()
        with Pool(kind, 4) as pool:
            readers = [pool.submit(read, ready, settings) for _ in range(4)]
            for name, value in SETTINGS.items():
                time.sleep(0.01)  # stands for asking somebody
                settings[name] = value
            ready.set()
            late = pool.submit(read, ready, settings)
            complete = sum(reader.result() == SETTINGS for reader in [*readers, late])
        print(f"{kind}: {complete} of 5 have read all {len(SETTINGS)} settings")


if __name__ == "__main__":
    main()
