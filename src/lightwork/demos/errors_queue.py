"""Errors reported over a queue, to one who deals with them while the work goes on.

Look at: the first report is heard before the second half of the work is begun, not at the end. When
the queue is closed, the reporter has heard all, and its loop ends.
"""

from __future__ import annotations

from lightwork import Pool, share

__all__ = ["check", "listen", "main"]


def check(text: str, reports: share.Queue) -> bool:
    """Whether 100 can be divided by the number; what goes wrong is reported."""
    try:
        return 100 % int(text) == 0
    except (ValueError, ZeroDivisionError) as error:
        reports.put((text, error))
        return False


def listen(reports: share.Queue, heard: share.Event) -> dict[str, str]:
    """Collect reports until no more can come."""
    found = {}
    for text, error in reports:
        found[text] = type(error).__name__
        heard.set()
    return found


def main() -> None:
    """One listens, the others work."""
    for kind in ("threads", "processes"):
        reports, heard = share.Queue(), share.Event()
        with Pool(kind, 3) as pool:
            listener = pool.submit(listen, reports, heard)
            good = []
            for half in (["1", "2", "three"], ["4", "0", "6"]):
                found = pool.map(check, half, [reports] * len(half))
                good += [text for text, ok in zip(half, found, strict=True) if ok]
                heard.wait(timeout=60)
            reports.close()
            print(f"{kind}: 100 can be divided by", *good)
            for text, error in listener.result().items():
                print(f"    {text!r} was reported: {error}")


if __name__ == "__main__":
    main()
