"""The table of knobs: what can be turned, and what a value may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dmps_cli.errors import UsageError
from dmps_cli.methods import LARGEST

Check = Callable[[str, Any], Any]
"""(option, value) -> the value as the method takes it. Raises UsageError."""


# --- Knobs: what can be turned, and what a value may be
@dataclass(frozen=True, kw_only=True)
class Knob:
    """A row of KNOBS: how a knob is called and explained on the command line."""

    option: str
    metavar: str
    help: str

    @property
    def label(self) -> str:
        """Its name in tables and JSON: the option's, as an identifier."""
        return self.option.lstrip("-").replace("-", "_")


SCORE_AT = ("x_t", "sample", "x0")
GAMMAS = ("1", "sqrt")
GUIDANCE = ("published", "bayes")
X_INITS = ("inverse", "adjoint")
SEARCH = "search"

KNOBS = {
    "weight": Knob(option="--lambda", metavar="X", help="Weight of the likelihood score."),
    "score_at": Knob(
        option="--score-at",
        metavar="|".join(SCORE_AT),
        help="Where the likelihood score is taken: before the prior's step, as the paper has it, at the sample after "
        "it, as the authors' code has it, or at x0, the measurement's noise counted, for few evaluations.",
    ),
    "cap": Knob(
        option="--cap",
        metavar="X|none",
        help="Largest factor by which one likelihood step may move a measured mode towards the data (above 1 it "
        "overshoots); none: as the paper has it.",
    ),
    "zeta": Knob(
        option="--zeta",
        metavar=f"X|{SEARCH}",
        help=f"dps: length of the step along the gradient, as its authors have it, or {SEARCH}, found in every step by "
        "a line search; diffpir: share of the noise that is drawn afresh, 0 to 1.",
    ),
    "prior_weight": Knob(
        option="--prior-weight", metavar="X", help="diffpir: weight of the prior against the measurement, its lambda."
    ),
    "guidance": Knob(
        option="--guidance",
        metavar="|".join(GUIDANCE),
        help="pgdm: how far a step moves: by the whole guidance, as published, or by what Bayes' rule gives a step of "
        "its length.",
    ),
    "eta": Knob(
        option="--eta", metavar="X", help="Share of fresh noise where nothing was measured, 0 (none) to 1 (ancestral)."
    ),
    "eta_y": Knob(
        option="--eta-y", metavar="X", help="dmps at x0: share of fresh noise where something was measured, 0 to 1."
    ),
    "gamma": Knob(
        option="--gamma",
        metavar="|".join(GAMMAS),
        help="Weight of the score: 1, or sqrt(s / (s^2 + (1 - s)^2)), s the share of data.",
    ),
    "x_init": Knob(
        option="--x-init",
        metavar="|".join(X_INITS),
        help="ot-ode: the picture that it begins with: a regularised inverse of the measurement, or its adjoint A^T y.",
    ),
}


def _number(option: str, value: str | float, what: str, is_right: Callable[[float], bool]) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not abs(number) <= LARGEST or not is_right(number):
        raise UsageError(f"{option} is {value}; it must be {what}")
    return number


def non_negative(option: str, value: str | float) -> float:
    """Returns the value as a number that is not negative. Raises UsageError."""
    return _number(option, value, "a non-negative number", lambda number: number >= 0.0)


def positive(option: str, value: str | float) -> float:
    """Returns the value as a positive number. Raises UsageError."""
    return _number(option, value, "a positive number", lambda number: number > 0.0)


def length_or_search(option: str, value: str | float) -> float | str:
    """Returns SEARCH for SEARCH, or else the value as a number that is not negative. Raises UsageError."""
    if value == SEARCH:
        return SEARCH
    return _number(option, value, f"a non-negative number, or {SEARCH}", lambda number: number >= 0.0)


def share(option: str, value: str | float) -> float:
    """Returns the value as a number from 0 to 1. Raises UsageError."""
    return _number(option, value, "a number from 0 to 1", lambda number: 0.0 <= number <= 1.0)


def share_or_none(option: str, value: str | float | None) -> float | None:
    """Returns None for None, or else as `share`."""
    return None if value is None else share(option, value)


def positive_or_none(option: str, value: str | float | None) -> float | None:
    """Returns None for None and "none", or else the value as a positive number. Raises UsageError."""
    if value in (None, "none"):
        return None
    assert value is not None
    return _number(option, value, "a positive number, or none", lambda number: number > 0.0)


def one_of(choices: tuple[str, ...]) -> Callable[[str, str], str]:
    """Returns a check of names."""

    def check(option: str, value: str) -> str:
        if value not in choices:
            raise UsageError(f"{option} is '{value}'; choose one of {', '.join(choices)}")
        return value

    return check
