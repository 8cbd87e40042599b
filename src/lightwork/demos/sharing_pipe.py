"""A Pipe: two talk to each other, each at its own end.

Look at: a conversation, where the next question depends on the last answer. When one end is closed,
the other one is told so by EOFError, and does not wait for ever.
"""

from __future__ import annotations

from typing import Any

from lightwork import Pool, share

__all__ = ["guess", "main"]

SECRET = 731


def guess(end: Any) -> int:
    """Find the number from 0 to 1000 that the other one thinks of; return how often it asked."""
    low, high = 0, 1000
    asked = 0
    while True:
        end.send((low + high) // 2)
        asked += 1
        try:
            answer = end.recv()
        except EOFError:
            return asked  # the other one has closed its end: that was it
        if answer == "more":
            low = (low + high) // 2 + 1
        else:
            high = (low + high) // 2 - 1


def main() -> None:
    """Answer until it is found."""
    for kind in ("threads", "processes"):
        mine, other = share.Pipe()
        with Pool(kind, 1) as pool:
            guesser = pool.submit(guess, other)
            heard = []
            while (number := mine.recv(timeout=60)) != SECRET:
                heard.append(number)
                mine.send("more" if number < SECRET else "less")
            mine.close()
            asked = guesser.result()
        print(f"{kind}:", *heard, f"and {number}: found, asking {asked} times")


if __name__ == "__main__":
    main()
