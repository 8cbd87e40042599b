"""What a family's policy says about another attempt, and how long to wait before it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..options import Backoff

__all__ = ["FamilyPolicy", "attempts", "wait"]


@dataclass(frozen=True, slots=True)
class FamilyPolicy:
    """How the tasks of one family are treated.

    Attributes:
        timeout: seconds that one call may run in one attempt; None for no limit.
        attempts_failed: attempts in all, when a call raises an error that is worth a retry.
        attempts_crashed: attempts in all, when the worker dies or goes over its memory.
        attempts_timed_out: attempts in all, when the time limit passes.
        backoff: the waits between attempts; None for none.
        priority: higher ones are sent first.
        exact: a finished call is never run again (for backends; it changes no decision here).
    """

    timeout: float | None = None
    attempts_failed: int = 1
    attempts_crashed: int = 1
    attempts_timed_out: int = 1
    backoff: Backoff | None = None
    priority: int = 0
    exact: bool = False


def attempts(policy: FamilyPolicy, how: str) -> int:
    """How many attempts in all the policy grants to a call that ended as `how`."""
    if how == "failed":
        return policy.attempts_failed
    if how == "timed-out":
        return policy.attempts_timed_out
    if how == "killed":
        return 1  # somebody asked for the end
    return policy.attempts_crashed


def wait(policy: FamilyPolicy, attempt: int, random: random.Random) -> float:
    """Seconds to wait after attempt number `attempt` before the next."""
    backoff = policy.backoff
    if backoff is None:
        return 0.0
    try:
        seconds = min(backoff.initial * backoff.factor ** (attempt - 1), backoff.maximum)
    except OverflowError:
        seconds = backoff.maximum if backoff.initial else 0.0
    if backoff.jitter and seconds:
        seconds *= 1 - backoff.jitter * random.random()
    return seconds
