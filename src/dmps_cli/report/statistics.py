"""What a number of images says of all images: mean, standard deviation, 95 % interval of the mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, stdev

from dmps_cli.report.tables import CI, STD, TableRow, Value, grouped

CONFIDENCE = 0.95


def summaries(
    rows: Sequence[TableRow], by: Sequence[str], values: Sequence[str], *, unit: str = "image"
) -> list[dict[str, Value]]:
    """Returns one row per group: its key, n, and of each of `values` the mean, NAME_std and NAME_ci95.

    _std: standard deviation with ddof 1; _ci95: half the width of the 95 % interval of the mean, t s / sqrt(n)
    (Student's t with n - 1 degrees of freedom); both None for n = 1. by: columns that make a group; what a row lacks of
    them is None. Rows of a group with the same `unit` (samples of one image) are averaged first: they are not
    independent. n: number of units. A value that some row of the group lacks has no mean, as in `means`.
    """
    return [
        {**key, "n": len(parts), **{k: v for name in values for k, v in _moments(parts, name).items()}}
        for key, members in grouped(rows, by)
        for parts in [_units(members, unit)]
    ]


def _units(rows: Sequence[TableRow], unit: str) -> list[list[TableRow]]:
    """Returns rows of the same unit together; a row without one is alone."""
    units: dict[object, list[TableRow]] = {}
    for index, row in enumerate(rows):
        name = row.get(unit)
        units.setdefault((index,) if name is None else name, []).append(row)
    return [*units.values()]


def _moments(units: Sequence[Sequence[TableRow]], name: str) -> dict[str, float | None]:
    numbers: list[float] = []
    for rows in units:
        found = [value for row in rows if isinstance(value := row.get(name), int | float)]
        if len(found) < len(rows):
            return {name: None, name + STD: None, name + CI: None}
        numbers.append(fmean(found))
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)):
        return {name: fmean(numbers), name + STD: None, name + CI: None}
    spread, count = stdev(numbers), len(numbers)
    return {name: fmean(numbers), name + STD: spread, name + CI: student_t(count - 1) * spread / math.sqrt(count)}


@cache
def student_t(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Returns t with P(|T| <= t) = confidence for Student's T, by bisection in theta = atan(t / sqrt(nu)).

    Raises ValueError for fewer than one degree of freedom or a confidence outside (0, 1).
    """
    if degrees < 1 or not 0.0 < confidence < 1.0:
        raise ValueError(f"degrees is {degrees} and confidence {confidence}; they must be at least 1 and within (0, 1)")
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < confidence else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _within(theta: float, degrees: int) -> float:
    """Returns P(|T| <= sqrt(nu) tan(theta)) for nu degrees of freedom (Abramowitz & Stegun, 26.7.3 and 26.7.4).

    Odd nu:   (2 / pi) (theta + sin (cos + 2/3 cos^3 + 2/3 4/5 cos^5 + ... + cos^(nu - 2)))
    even nu:  sin (1 + 1/2 cos^2 + 1/2 3/4 cos^4 + ... + cos^(nu - 2))
    """
    is_odd = degrees % 2 == 1
    term = math.cos(theta) if is_odd else 1.0
    total, square = 0.0, math.cos(theta) ** 2
    for power in range(1 if is_odd else 0, degrees - 1, 2):
        total += term
        term *= square * (power + 1) / (power + 2)
    return 2 / math.pi * (theta + math.sin(theta) * total) if is_odd else math.sin(theta) * total
