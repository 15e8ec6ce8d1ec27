"""Allows and denials over time: a lane for each tool, allows above its line and denials below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..calls import Decision
from ..errors import MissingDependency, PolicyError
from ..printable import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plotted"]

_MOST_LANES: Final = 12
_LONGEST: Final = 40
_DAY: Final = timedelta(days=1)
_HEIGHT: Final = 0.42
"""Of the tallest bar; a lane is 1 high."""
_KINDS: Final[dict[str, dict[str, Any]]] = {
    "allowed": {"facecolor": "#2da44e"},
    "denied": {"facecolor": "#cf222e"},
    "denied, not enforced": {"facecolor": "#eac54f", "hatch": "////", "edgecolor": "#7d4e00", "linewidth": 0.0},
}
Bars: TypeAlias = dict[str, Counter[int]]
"""How many decisions of each kind fall into each span of time."""


def plotted(decisions: Sequence[tuple[datetime, Decision]], bins: int, ax: Axes | None) -> Axes:
    """Draw decisions and their times; `DecisionLog.plot` tells the rest."""
    if bins < 1:
        raise PolicyError("`bins` is into how many spans the time is cut: give at least 1")
    try:
        from matplotlib import pyplot  # noqa: PLC0415
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num  # noqa: PLC0415
        from matplotlib.patches import Patch  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise MissingDependency("`DecisionLog.plot`", "notebook") from error
    times = [at for at, _ in decisions]
    start, width = _spans(times, bins)
    lanes = _lanes(decisions, start, width, bins)
    if ax is None:
        _, ax = pyplot.subplots(figsize=(9, 1.2 + 0.7 * max(1, len(lanes))), layout="constrained")
    tallest = max([_deepest(bars, at) for bars in lanes.values() for at in range(bins)], default=1)
    for row, bars in enumerate(lanes.values()):
        ax.axhline(-row, color="#888888", linewidth=0.6, zorder=0)
        _draw(ax, -row, bars, date2num(start), width / _DAY, _HEIGHT / tallest)
    ax.set_yticks([-row for row in range(len(lanes))], [_label(name, bars) for name, bars in lanes.items()])
    for label in ax.get_yticklabels():
        label.set_parse_math(False)  # an agent's `$` is no formula
    ax.set_ylim(0.6 - max(1, len(lanes)), 0.6)
    if lanes:
        locator = AutoDateLocator()
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        ax.set_xlim(date2num(start), date2num(start + bins * width))
    seen = [kind for kind in _KINDS if any(bars[kind] for bars in lanes.values())]
    if seen:
        ax.legend(
            [Patch(**_KINDS[kind]) for kind in seen],
            seen,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            frameon=False,
        )
    ax.spines[["top", "left", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax


def _spans(times: list[datetime], bins: int) -> tuple[datetime, timedelta]:
    """When the first span of time begins, and how long each is."""
    if not times:
        return datetime.min.replace(tzinfo=UTC), timedelta()
    start, length = min(times), max(times) - min(times)
    return start, max(length / bins, timedelta(microseconds=1)) if length else timedelta(seconds=1)


def _lanes(
    decisions: Sequence[tuple[datetime, Decision]], start: datetime, width: timedelta, bins: int
) -> dict[str, Bars]:
    """The bars of each tool, in the order of their first call; agents invent names, so the rarest share a lane."""
    calls = Counter(decision.call.tool for _, decision in decisions)
    own = set(calls) if len(calls) <= _MOST_LANES else {tool for tool, _ in calls.most_common(_MOST_LANES - 1)}
    rest = f"{len(calls) - len(own):,} other tools"
    lanes: dict[str, Bars] = {}
    for at, decision in decisions:
        tool = decision.call.tool
        name = _name(tool) if tool in own else rest
        bars = lanes.setdefault(name, {kind: Counter() for kind in _KINDS})
        kind = "allowed" if decision.effect == "allow" else "denied" if decision.enforced else "denied, not enforced"
        bars[kind][min(bins - 1, (at - start) // width)] += 1
    return {name: lanes[name] for name in sorted(lanes, key=lambda name: name == rest)}


def _name(tool: str) -> str:
    return visible(tool[:_LONGEST]) + ("…" if len(tool) > _LONGEST else "")


def _deepest(bars: Bars, at: int) -> int:
    return max(bars["allowed"][at], bars["denied"][at] + bars["denied, not enforced"][at])


def _draw(ax: Axes, line: int, bars: Bars, start: float, width: float, unit: float) -> None:
    """The bars of one lane; times are in days, as matplotlib counts them."""
    for kind, style in _KINDS.items():
        spans = sorted(at for at, many in bars[kind].items() if many)
        side = 1 if kind == "allowed" else -1
        above = bars["denied"] if kind == "denied, not enforced" else Counter[int]()
        ax.bar(
            [start + at * width for at in spans],
            [side * unit * bars[kind][at] for at in spans],
            width,
            [line - unit * above[at] for at in spans],
            align="edge",
            label=kind,
            **style,
        )


def _label(name: str, bars: Bars) -> str:
    denied = bars["denied"].total() + bars["denied, not enforced"].total()
    return f"{name}\n{bars['allowed'].total():,} allowed, {denied:,} denied"
