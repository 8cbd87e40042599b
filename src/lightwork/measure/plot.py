"""The plot of a sweep: measured points with their spread, the fitted curve, the ideal line.

Readable in colour and in print: kinds differ in colour (Okabe and Ito's palette, which people with
any colour vision can tell apart), in marker (full or hollow) and in line.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra

if TYPE_CHECKING:
    from .sweep import Sweep

__all__ = ["check", "plot"]

_STYLES = {
    "processes": ("#0072B2", "o", "full", "-"),
    "threads": ("#D55E00", "s", "none", "-."),
}


def check(path: str | os.PathLike[str]) -> None:
    """See, before anything is measured, whether a plot could be drawn into such a file.

    Raises MissingExtra without matplotlib; ValueError: no such format.
    """
    known = _figure_class()(figsize=(1, 1)).canvas.get_supported_filetypes()
    ending = os.path.splitext(os.fspath(path))[1].removeprefix(".").lower()
    if ending not in known:
        raise ValueError(f"the name of a plot must end in .png, .svg or .pdf, not in {ending!r}")


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("plots need matplotlib: pip install 'lightwork[plot]'") from None
    return Figure


def plot(sweep: Sweep, path: str | os.PathLike[str]) -> None:
    """Draw into a file; see ``Sweep.plot``."""
    # No pyplot: it would choose a display for the whole program.
    figure: Any = _figure_class()(figsize=(7.0, 4.5), layout="constrained")
    axes: Any = figure.add_subplot()
    most = max(row.workers for row in sweep.rows)
    alone = next(row.seconds for row in sweep.rows if row.kind == "serial")
    axes.plot([1, most], [1, most], color="0.45", linestyle=(0, (2, 3)), label="ideal")
    axes.axhline(1.0, color="0.6", linewidth=0.8, zorder=0)
    best = sweep.best
    if best.kind == "serial":
        _say(axes, "use in place", (most, 1.0), (0, 4), weight="bold", horizontalalignment="right")
    if sweep.cpus < most:
        axes.axvline(sweep.cpus, color="0.8", linewidth=0.8, zorder=0)
        cores = f"{sweep.cpus} core{'s' * (sweep.cpus != 1)}"
        _say(axes, cores, (sweep.cpus, 0), (4, 4), color="0.35")
    for fit in sweep.fit:
        rows = [row for row in sweep.rows if row.kind == fit.kind]
        colour, marker, fill, line = _STYLES[fit.kind]
        low = [row.speedup - alone / row.high for row in rows]
        high = [alone / row.low - row.speedup for row in rows]
        spread = [[max(0.0, one) for one in side] for side in (low, high)]
        axes.errorbar(
            [row.workers for row in rows],
            [row.speedup for row in rows],
            yerr=spread,
            color=colour,
            marker=marker,
            fillstyle=fill,
            linestyle="none",
            capsize=3,
            label=f"{fit.kind}, median and spread of {sweep.rounds}",
        )
        law = fit.usl or fit.amdahl
        if law is not None:
            steps = [1 + (most - 1) * at / 100 for at in range(101)]
            name = "USL" if fit.usl is not None else "Amdahl"
            axes.plot(
                steps,
                [law.speedup(n) * alone / fit.one for n in steps],
                color=colour,
                linestyle=line,
                linewidth=1.3,
                label=f"{fit.kind}, {name}",
            )
    if best.kind != "serial":
        text = f"use {best.workers} {best.kind}"
        place = {"horizontalalignment": "right" if best.workers > most / 2 else "left"}
        above = (best.workers, alone / best.low)
        _say(axes, text, above, (0, 6), weight="bold", **place)
    top = max(1.0, *(alone / row.low for row in sweep.rows))
    axes.set(
        xlabel="workers",
        ylabel="speed-up against in place",
        title=f"{sweep.function}: {sweep.calls:,} calls",
        xlim=(0.5, most + 0.5),
        ylim=(0, 1.25 * top),
    )
    axes.set_xticks(sorted({row.workers for row in sweep.rows}))
    axes.legend(frameon=False, fontsize="small")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    # No date in it: the same sweep gives the same file.
    dateless = {"Date": None} if os.fspath(path).lower().endswith(".svg") else None
    figure.savefig(os.fspath(path), dpi=150, metadata=dateless)


def _say(
    axes: Any, text: str, where: tuple[float, float], offset: tuple[int, int], **style: Any
) -> None:
    """Words at a point, legible on top of lines."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0}
    axes.annotate(text, where, offset, textcoords="offset points", bbox=box, **style)
