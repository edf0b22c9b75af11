"""What a number of images says of all images: mean, standard deviation, 95 % interval of the mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from dmps_cli.report.tables import CI, STD, TableRow, Value, grouped

CONFIDENCE = 0.95
LEAST_N = 3  # of an interval: Student's t of one degree of freedom is 12.7 standard errors, which says nothing


def summaries(
    rows: Sequence[TableRow], by: Sequence[str], values: Sequence[str], *, unit: str = "image"
) -> list[dict[str, Value]]:
    """Returns one row per group: its key, n, and of each of `values` the mean, NAME_std and NAME_ci95.

    _std: standard deviation with ddof 1; _ci95: half the width of the 95 % interval of the mean, t s / sqrt(n)
    (Student's t with n - 1 degrees of freedom). _std is None for n = 1, _ci95 below LEAST_N. by: columns that make a
    group; what a row lacks of them is None. Rows of a group with the same `unit` (samples of one image) are averaged
    first: they are not independent. n: number of units. A value that some row of the group lacks has no mean, as in
    `means`.
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
    half = student_t(count - 1) * spread / math.sqrt(count) if count >= LEAST_N else None
    return {name: fmean(numbers), name + STD: spread, name + CI: half}


def student_t(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Returns t with P(|T| <= t) = confidence for Student's T.

    Raises ValueError for fewer than one degree of freedom or a confidence outside (0, 1).
    """
    from scipy.special import stdtrit  # what scipy.stats.t.ppf calls, in a third of the time to import

    if degrees < 1 or not 0.0 < confidence < 1.0:
        raise ValueError(f"degrees is {degrees} and confidence {confidence}; they must be at least 1 and within (0, 1)")
    return float(stdtrit(degrees, (1.0 + confidence) / 2.0))
