"""What a shell may complete: names of tables, lists of them, words that an option spells out, kernels."""

from __future__ import annotations

import glob
from collections.abc import Callable

from dmps_cli.errors import DmpsError
from dmps_cli.levels import SAMPLERS
from dmps_cli.methods.defaults import FAVOURS, PRESETS
from dmps_cli.methods.table import FAMILIES, METHODS
from dmps_cli.tasks.kernels import FORMS
from dmps_cli.tasks.options import BOUNDARIES
from dmps_cli.tasks.rows import TASKS
from dmps_cli.weights.cards import cards


def complete(choices: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Completes in a shell from a table's names."""

    def matching(incomplete: str) -> list[str]:
        try:
            return [name for name in choices() if name.startswith(incomplete)]
        except DmpsError:  # a table that cannot be read is said when the command runs
            return []

    return matching


def complete_list(choices: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Completes the last name of a list with commas between; what stands before is not offered again."""

    def matching(incomplete: str) -> list[str]:
        *before, last = incomplete.split(",")
        return [",".join([*before, name]) for name in complete(choices)(last) if name not in before]

    return matching


def complete_words(metavar: str | None) -> Callable[[str], list[str]] | None:
    """Completes what a metavar spells out, as float32|bfloat16; None where it does not."""
    words = [word for word in (metavar or "").split("|") if word == word.lower() and word.isascii()]
    return complete(lambda: words) if words else None


def complete_kernel(incomplete: str) -> list[str]:
    """Returns formulas up to their numbers, and files and folders of that beginning."""
    files = sorted(glob.glob(f"{glob.escape(incomplete)}*"))  # noqa: PTH207 - the beginning of a name
    return [*(f"{name}:" for name in FORMS if name.startswith(incomplete)), *files]


COMPLETE = {
    "models": complete(lambda: [*cards()]),
    "samplers": complete(lambda: [*SAMPLERS]),
    "methods": complete(lambda: [*FAMILIES, *METHODS]),
    "favours": complete(lambda: [*FAVOURS]),
    "presets": complete(lambda: [*PRESETS]),
    "tasks": complete(lambda: [*TASKS]),
    "kernel": complete_kernel,
    "boundary": complete(lambda: [*BOUNDARIES]),
    "lists of methods": complete_list(lambda: [*FAMILIES, *METHODS]),
    "lists of samplers": complete_list(lambda: [*SAMPLERS]),
    "lists of tasks": complete_list(lambda: [*TASKS]),
}
"""Completion by the name of a table."""
