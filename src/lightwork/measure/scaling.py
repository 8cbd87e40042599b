"""Laws of scaling, fitted to measured speed-ups.

* **Amdahl** (Gene M. Amdahl, "Validity of the single processor approach to achieving large scale
  computing capabilities", AFIPS 1967): a share `serial` of the work cannot be divided::

      S(n) = n / (1 + serial * (n - 1))

* **The Universal Scalability Law** (Neil J. Gunther, "Guerrilla Capacity Planning", Springer 2007,
  chapter 4) adds what workers cost each other, `crosstalk`, which grows with every pair::

      S(n) = n / (1 + contention * (n - 1) + crosstalk * n * (n - 1))

  It has a peak, at ``sqrt((1 - contention) / crosstalk)`` workers; beyond it, more are slower.

Both are linear in their parameters once divided out: ``n / S - 1`` is ``serial * (n - 1)``, and
``contention * (n - 1) + crosstalk * n * (n - 1)``. So they are fitted by least squares, with
parameters held to what they can be (at least 0, shares at most 1). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Amdahl", "TooFewPoints", "Usl", "fit_amdahl", "fit_usl"]


class TooFewPoints(ValueError):
    """There are not enough pool sizes to fit a law; the message says how many are needed."""


class Amdahl(NamedTuple):
    """Amdahl's law."""

    serial: float
    error: float  # root mean square of the misfit, as a share of the speed-up

    def speedup(self, n: float) -> float:
        """Expected with `n` workers."""
        return n / (1 + self.serial * (n - 1))

    @property
    def limit(self) -> float:
        """What no number of workers gets beyond."""
        return math.inf if self.serial <= 0 else 1 / self.serial


class Usl(NamedTuple):
    """Gunther's Universal Scalability Law."""

    contention: float
    crosstalk: float
    error: float

    def speedup(self, n: float) -> float:
        """Expected with `n` workers."""
        return n / (1 + self.contention * (n - 1) + self.crosstalk * n * (n - 1))

    @property
    def peak(self) -> float:
        """The number of workers beyond which more are slower; infinite if there is none."""
        if self.crosstalk <= 0:
            return math.inf
        return max(1.0, math.sqrt(max(0.0, 1 - self.contention) / self.crosstalk))


Points = Sequence[tuple[float, float]]
"""Pairs of a number of workers and the speed-up against one; that of one worker is 1."""


def _checked(points: Points, least: int, law: str) -> list[tuple[float, float]]:
    found = [(float(n), float(s)) for n, s in points if n > 1]
    for n, s in points:
        if not (n >= 1 and s > 0 and math.isfinite(n) and math.isfinite(s)):
            raise ValueError(f"not a point of a scaling curve: {n} workers, speed-up {s}")
    sizes = len({n for n, _ in found})
    if sizes < least:
        raise TooFewPoints(
            f"{law} needs at least {least} pool sizes of more than one worker to be fitted, "
            f"and there {'is' if sizes == 1 else 'are'} {sizes}"
        )
    return found


def _misfit(points: list[tuple[float, float]], law: Amdahl | Usl) -> float:
    squares = [(law.speedup(n) / s - 1) ** 2 for n, s in points]
    return math.sqrt(sum(squares) / len(squares))


def fit_amdahl(points: Points) -> Amdahl:
    """Fit Amdahl's law. Raises TooFewPoints for less than two sizes of more than one worker."""
    found = _checked(points, 2, "Amdahl's law")
    # Weighted by S / n: then it is the error of the speed-up that counts, not of its inverse.
    top = bottom = 0.0
    for n, s in found:
        weight = (s / n) ** 2
        top += weight * (n - 1) * (n / s - 1)
        bottom += weight * (n - 1) ** 2
    law = Amdahl(min(1.0, max(0.0, top / bottom)), 0.0)
    return law._replace(error=_misfit(found, law))


def fit_usl(points: Points) -> Usl:
    """Fit the Universal Scalability Law. Raises TooFewPoints for less than three such sizes."""
    found = _checked(points, 3, "the Universal Scalability Law")
    rows = [((n - 1) * s / n, n * (n - 1) * s / n, (n / s - 1) * s / n) for n, s in found]
    aa = sum(a * a for a, _, _ in rows)
    bb = sum(b * b for _, b, _ in rows)
    ab = sum(a * b for a, b, _ in rows)
    ay = sum(a * y for a, _, y in rows)
    by = sum(b * y for _, b, y in rows)
    determinant = aa * bb - ab * ab
    candidates = [
        (min(1.0, max(0.0, ay / aa)), 0.0),
        (0.0, max(0.0, by / bb)),
        (1.0, max(0.0, (by - ab) / bb)),
    ]
    if determinant > 1e-12 * aa * bb:
        contention = (ay * bb - by * ab) / determinant
        crosstalk = (by * aa - ay * ab) / determinant
        if 0 <= contention <= 1 and crosstalk >= 0:
            candidates = [(contention, crosstalk)]  # inside its bounds, the best there is

    def squares(pair: tuple[float, float]) -> float:
        return sum((pair[0] * a + pair[1] * b - y) ** 2 for a, b, y in rows)

    contention, crosstalk = min(candidates, key=squares)
    law = Usl(contention, crosstalk, 0.0)
    return law._replace(error=_misfit(found, law))
