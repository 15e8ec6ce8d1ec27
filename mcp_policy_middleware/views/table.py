"""Tables for people: HTML for a notebook, plain text for a terminal.

Names and texts come from agents, servers and strangers. Characters that do not print, or that turn a line around, are
shown as their escapes; no attribute is made of a text; nothing is loaded, and no script is written. Colours are
inherited but for the pills, which bring both of theirs, so that light and dark notebooks can be read.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final, Literal, TypeAlias

from ..printable import visible

__all__ = ["Cell", "Mark", "Table", "Tone", "View", "Viewed", "to_html", "to_text"]

Tone: TypeAlias = Literal["name", "time", "good", "bad", "warn", "faint"]

_MOST: Final = 500
_MOST_PARTS: Final = 50
_PILL: Final = "color:#fff;border-radius:.7em;padding:.1em .6em;white-space:nowrap;background:"
_TONES: Final[dict[Tone, tuple[str, str]]] = {
    "name": ("<code>", "</code>"),
    "time": ('<span style="white-space:nowrap">', "</span>"),
    "good": (f'<span style="{_PILL}#1a7f37">', "</span>"),
    "bad": (f'<span style="{_PILL}#cf222e">', "</span>"),
    "warn": (f'<span style="{_PILL}#9a6700">', "</span>"),
    "faint": ('<span style="opacity:.65">', "</span>"),
}
_LINE: Final = "1px solid rgba(128,128,128,.35)"
_CELL: Final = (
    f'style="text-align:left;vertical-align:top;padding:.3em .8em;line-height:1.6;border:0;border-bottom:{_LINE}"'
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A text that is more than words: a name that a program goes by, or an answer."""

    text: str
    tone: Tone = "name"


Part: TypeAlias = str | Mark
Cell: TypeAlias = Part | tuple[Part, ...]
"""What stands in one field; the parts of a tuple stand one under the other."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; without a head, each row is a name and what it is.

    Attributes:
        title: Parts that stand above it, in one line.
        head: The names of the columns; one that is empty in every row is left out.
        rows: As many cells each as there are columns.
        note: What stands below it.
    """

    title: tuple[Part, ...] = ()
    head: tuple[str, ...] = ()
    rows: Sequence[tuple[Cell, ...]] = ()
    note: str = ""

    def narrowed(self) -> Table:
        """The same without empty columns; without a head, without the rows that say nothing."""
        if not self.head:
            return Table(self.title, (), [row for row in self.rows if any(_parts(row[1]))], self.note)
        kept = [at for at in range(len(self.head)) if any(any(_parts(row[at])) for row in self.rows)]
        rows = [tuple([row[at] for at in kept]) for row in self.rows]
        return Table(self.title, tuple([self.head[at] for at in kept]), rows, self.note)


class Viewed:
    """Shows itself as tables: to notebooks by `_repr_html_`, to terminals by `str` and IPython's `_repr_pretty_`."""

    __slots__ = ()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls._repr_pretty_ = Viewed._repr_pretty_  # type: ignore[method-assign]  # IPython looks where `__repr__` is

    def _tables(self) -> Iterable[Table]:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return to_html(self._tables())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self) if printer.indentation else str(self))  # inside a list, one line

    def __str__(self) -> str:
        return to_text(self._tables())


@dataclass(frozen=True, slots=True)
class View(Viewed):
    """Tables that stand for themselves."""

    tables: tuple[Table, ...]

    def _tables(self) -> Iterable[Table]:
        return self.tables


def to_html(tables: Iterable[Table]) -> str:
    """Tables as one piece of HTML; the classes keep a notebook from reading formulas into it."""
    told = "".join([_table_html(table.narrowed()) for table in tables])
    return f'<div class="mcp-policy tex2jax_ignore mathjax_ignore" style="overflow-x:auto">{told}</div>'


def to_text(tables: Iterable[Table]) -> str:
    """Tables as text, without colours."""
    return "\n\n".join(["\n".join(_table_lines(table.narrowed())) for table in tables])


def _parts(cell: Cell) -> tuple[Part, ...]:
    """A cell's parts that say something, and how many more there are."""
    parts = tuple([part for part in (cell if isinstance(cell, tuple) else (cell,)) if _words(part)])
    return parts if len(parts) <= _MOST_PARTS else (*parts[:_MOST_PARTS], f"and {len(parts) - _MOST_PARTS:,} more")


def _words(part: Part) -> str:
    text = part.text if isinstance(part, Mark) else part
    return visible(text[:_MOST]) + ("…" if len(text) > _MOST else "")


def _html(part: Part) -> str:
    before, after = _TONES[part.tone] if isinstance(part, Mark) else ("", "")
    return f"{before}{html.escape(_words(part))}{after}"


def _table_html(table: Table) -> str:
    title = "".join([f"<bdi>{_html(part)}</bdi> " for part in table.title])
    head = "".join([f'<th scope="col" {_CELL}>{html.escape(name)}</th>' for name in table.head])
    rows = "".join([_row_html(row, named=not table.head) for row in table.rows])
    return (
        (f'<p style="margin:.6em 0">{title.strip()}</p>' if title else "")
        + (
            f'<table style="border-collapse:collapse;margin:.6em 0">{f"<thead><tr>{head}</tr></thead>" if head else ""}'
            if rows
            else ""
        )
        + (f"<tbody>{rows}</tbody></table>" if rows else "")
        + (f'<p style="margin:.6em 0;opacity:.65">{html.escape(visible(table.note))}</p>' if table.note else "")
    )


def _row_html(row: tuple[Cell, ...], *, named: bool) -> str:
    cells = ["<br>".join([_html(part) for part in _parts(cell)]) for cell in row]
    first = f'<th scope="row" {_CELL}>{cells.pop(0)}</th>' if named else ""
    return f"<tr>{first}{''.join([f'<td {_CELL}>{cell}</td>' for cell in cells])}</tr>"


def _table_lines(table: Table) -> Iterable[str]:
    if table.title:
        yield " ".join([_words(part) for part in table.title])
    grid = [[[_words(part) for part in _parts(cell)] for cell in row] for row in table.rows]
    if table.head:
        grid.insert(0, [[name] for name in table.head])
    widths = [max([len(line) for cell in column for line in cell], default=0) for column in zip(*grid, strict=True)]
    margin = "" if table.head else "  "
    for number, row in enumerate(grid):
        for lines in zip_longest(*row, fillvalue=""):
            told = "  ".join([line.ljust(width) for line, width in zip(lines, widths, strict=True)])
            yield f"{margin}{told}".rstrip()
        if table.head and not number:
            yield "  ".join(["-" * width for width in widths])
    if table.note:
        yield visible(table.note)
