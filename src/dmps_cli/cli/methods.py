"""`dmps methods`: how the posterior is sampled, and what of it can be turned."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dmps_cli.cli.console import Console
from dmps_cli.levels import SAMPLERS
from dmps_cli.methods.defaults import DEFAULTS
from dmps_cli.methods.knobs import KNOBS
from dmps_cli.methods.options import defaults_of
from dmps_cli.methods.table import METHODS


def methods(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """List the methods: on which levels, with how many evaluations, their knobs with the defaults.

    A name may have a form in parentheses; its options choose it. All defaults are those of the preset `default`.

    Example: dmps methods
    """
    console = Console(as_json=as_json)
    console.object({name: _facts(name) for name in METHODS})
    console.table([_row(name) for name in METHODS])


def _facts(name: str) -> dict[str, Any]:
    row = METHODS[name]
    return {
        "help": row.help,
        "defaults": {sampler: DEFAULTS[name, sampler] for sampler in SAMPLERS if (name, sampler) in DEFAULTS},
        "form": dict(row.fixed),
        "knobs": {
            KNOBS[knob].option: {"help": KNOBS[knob].help, "expected": rule.what, "default": defaults_of(name, knob)}
            for knob, rule in row.knobs.items()
            if knob not in row.fixed
        },
        "back_propagates": row.back_propagates,
        "needs_modes": row.needs_modes,
    }


def _row(name: str) -> dict[str, Any]:
    row = METHODS[name]
    counts = [f"{sampler} {DEFAULTS[name, sampler]['nfe']}" for sampler in SAMPLERS if (name, sampler) in DEFAULTS]
    form = [f"{KNOBS[knob].option} {value}" for knob, value in row.fixed.items()]
    knobs = [f"{KNOBS[knob].option} {_default(name, knob)}" for knob in row.knobs if knob not in row.fixed]
    return {
        "method": name,
        "levels, NFE": ", ".join(counts),
        "what it does": row.help,
        "options": ", ".join([*form, *knobs]),
    }


def _default(name: str, knob: str) -> str:
    """Returns a knob's default, those of tasks in parentheses."""
    text, _, special = defaults_of(name, knob).partition("; ")
    return f"{text} ({special})" if special else text
