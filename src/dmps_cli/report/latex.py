"""Rows of numbers as a LaTeX table (booktabs)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from dmps_cli.metrics.table import METRICS
from dmps_cli.report.tables import (
    TableRow,
    cell_notes,
    full_text,
    heading,
    is_numeric,
    ranks,
    shown_columns,
)
from dmps_cli.text import stripped

_SPECIAL = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\n": " "}
    | {
        "±": r"$\pm$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "<": "$<$",
        ">": "$>$",
        "|": "$|$",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
    }
)


def escaped(text: str) -> str:
    """Returns the text as LaTeX prints it; letters beyond ASCII as they are (UTF-8 is LaTeX's default since 2018)."""
    return stripped(text).translate(_SPECIAL)


def latex(
    rows: Sequence[TableRow],
    *,
    best_within: Sequence[str] | None = None,
    rules_between: str = "task",
    notes: Sequence[str] = (),
) -> str:
    r"""Returns a tabular with booktabs' rules, to be \input; the best (see `ranks`) bold, the second underlined.

    rules_between: a column at whose changes a rule is drawn. notes: sentences under the table (protocol, footnotes).
    """
    marks = {} if best_within is None else ranks(rows, best_within)
    names = shown_columns(rows)
    shape = "".join("r" if is_numeric(rows, name) else "l" for name in names)
    lines = [" & ".join(map(_heading, names)) + r" \\"]
    body = [
        " & ".join(_cell(full_text(row, name), marks.get((index, name))) for name in names) + r" \\"
        for index, row in enumerate(rows)
    ]
    changes = [above.get(rules_between) != below.get(rules_between) for above, below in pairwise(rows)]
    for line, changes_next in zip(body, [*changes, False], strict=True):
        lines += [line, r"\midrule"] if changes_next else [line]
    sentences = [*cell_notes(rows), *notes]
    foot = [rf"\par\smallskip{{\footnotesize {escaped(text)}\par}}" for text in sentences]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            rf"\begin{{tabular}}{{{shape}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            *foot,
            "",
        ]
    )


def _heading(name: str) -> str:
    metric = METRICS.get(name)
    arrow = "" if metric is None else r" $\uparrow$" if metric.higher_is_better else r" $\downarrow$"
    return escaped(heading(name)) + arrow


def _cell(text: str, rank: int | None) -> str:
    text = escaped(text)
    return rf"\textbf{{{text}}}" if rank == 1 else rf"\underline{{{text}}}" if rank == 2 else text
