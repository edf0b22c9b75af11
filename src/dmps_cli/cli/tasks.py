"""`dmps tasks`: what can be undone."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dmps_cli.checks import flag
from dmps_cli.cli.console import Console
from dmps_cli.tasks.rows import TASKS
from dmps_cli.units import GREY_LEVELS


def _text(default: Any) -> str:
    """Returns a default as it would be typed; nothing for what is open."""
    if isinstance(default, list):
        return ",".join(map(_text, default))
    if isinstance(default, float):
        return f"{default:.4g}"
    return "" if default in (None, False) else str(default)


def tasks(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """List the tasks, their noise, and their options with the defaults.

    Example: dmps tasks
    """
    console = Console(as_json=as_json)
    rows: dict[str, dict[str, Any]] = {
        name: {
            "help": row.help,
            "sigma_y": row.sigma_y,
            "sigma_y_255": row.sigma_y * GREY_LEVELS,
            "options": {option: default for option, default in row.params.items() if option not in row.fixed},
        }
        for name, row in TASKS.items()
    }
    console.object(rows)
    if not as_json:
        console.table(
            [
                {
                    "task": name,
                    "sigma_y": row["sigma_y"],
                    "of 255": row["sigma_y_255"],
                    "what is undone": row["help"],
                    "options": " ".join(
                        f"{flag(name)} {_text(value)}".rstrip() for name, value in row["options"].items()
                    ),
                }
                for name, row in rows.items()
            ]
        )
