"""Examples that run as they stand; they use public names only. ``lightwork demo`` lists them."""

from __future__ import annotations

__all__ = ["DEMOS"]

DEMOS = {
    "factorials": "a pool of threads, results in order",
    "squares": "how long pools of 2, 4 and 8 workers take",
}
"""Their names, and what each shows. ``source-files`` in a module called ``source_files``."""
