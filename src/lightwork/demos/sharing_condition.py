"""A Condition: wait until something has changed, asleep, and be woken when it has.

Look at: three players take turns. Each waits until it is its turn, without asking again and again;
``wait_for`` lets go of the lock while it sleeps, and holds it again when it returns.
"""

from __future__ import annotations

from lightwork import Pool, share

__all__ = ["main", "play"]

PLAYERS = 3
ROUNDS = 4


def play(me: int, changed: share.Condition, moves: share.List) -> None:
    """Move when the number of moves says that it is my turn."""
    for _ in range(ROUNDS):
        with changed:
            changed.wait_for(lambda: len(moves) % PLAYERS == me)
            moves.append(me)
            changed.notify_all()


def main() -> None:
    """Play, and look at who has moved when."""
    for kind in ("threads", "processes"):
        changed, moves = share.Condition(), share.List()
        with Pool(kind, PLAYERS) as pool:
            # The last comes first, so that somebody has to wait.
            players = [pool.submit(play, me, changed, moves) for me in (2, 1, 0)]
            for player in players:
                player.result()
        in_turn = moves.copy() == [*range(PLAYERS)] * ROUNDS
        print(f"{kind}:", *moves, "- in turn" if in_turn else "- OUT OF TURN")


if __name__ == "__main__":
    main()
