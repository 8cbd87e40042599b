"""Finished results in a file, so that a run carries on where it stopped.

``content``: what is compared, of items and functions. ``file``: the file, and what it promises.
``recorder``: results on their way into it. ``resume``: a map that takes from it what is there.
``checkpoint``: the public name.
"""

from __future__ import annotations

from .checkpoint import Checkpoint

__all__ = ["Checkpoint"]
