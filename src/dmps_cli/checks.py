"""Options: how one is described, and values as they are typed or read, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import field
from typing import Any

from dmps_cli.errors import UsageError, unknown_name

MAX_SEED = 2**63 - 1


def option(
    help: str, metavar: str | None = None, *, names: tuple[str, ...] = (), default: Any = None, complete: str = ""
) -> Any:
    """Returns a field of a record of options, which the command line shows as it is described here.

    names: how it is written, where that is not its own name; complete: the table whose names its values are.
    """
    return field(default=default, metadata={"help": help, "metavar": metavar, "names": names, "complete": complete})


def flag(option: str) -> str:
    """Returns how an option is written on the command line."""
    return "--" + option.replace("_", "-")


def checked_number(option: str, value: Any, what: str, is_right: Callable[[float], bool]) -> float:
    """Returns the value as a finite number that is right. Raises UsageError, saying what it must be."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or not is_right(number):
        raise UsageError(f"{flag(option)} is {value}; it must be {what}")
    return number


def whole_number(what: str, is_right: Callable[[int], bool]) -> Callable[[str, Any], int]:
    """Returns a check of whole numbers, as wide as they come."""

    def check(option: str, value: Any) -> int:
        try:
            number = int(value)  # not through float, which has 53 bits
            is_whole = number == value if not isinstance(value, str) else True
        except (TypeError, ValueError, OverflowError):
            is_whole, number = False, 0
        if not is_whole or isinstance(value, bool) or not is_right(number):
            raise UsageError(f"{flag(option)} is {value}; it must be {what}")
        return number

    return check


def real_number(what: str, is_right: Callable[[float], bool]) -> Callable[[str, Any], float]:
    """Returns a check of finite numbers."""
    return lambda option, value: checked_number(option, value, what, is_right)


def real_numbers(count: int, what: str, is_right: Callable[[list[float]], bool]) -> Callable[[str, Any], list[float]]:
    """Returns a check of so many finite numbers, with commas between or as a list."""

    def check(option: str, value: Any) -> list[float]:
        try:
            parts = value.split(",") if isinstance(value, str) else list(value)
            numbers = [float(part) for part in parts]
        except (TypeError, ValueError, OverflowError):
            numbers = []
        if len(numbers) != count or not all(map(math.isfinite, numbers)) or not is_right(numbers):
            raise UsageError(f"{flag(option)} is {value}; it must be {what}")
        return numbers

    return check


def checked(kind: str, name: str, choices: Collection[str]) -> str:
    """Returns the name, if it is one of the choices. Raises UsageError with the nearest one otherwise."""
    if name not in choices:
        raise unknown_name(kind, name, choices)
    return name


def split(names: str | None) -> list[str]:
    """Returns the names of a comma-separated list, each once."""
    return [*dict.fromkeys(name.strip() for name in (names or "").split(",") if name.strip())]


def numbers(option: str, text: str | None, kind: Callable[[str], Any]) -> list[Any]:
    """Returns the values of a comma-separated list, [None] for an open option. Raises UsageError."""
    if text is None:
        return [None]
    try:
        values = [kind(part) for part in split(text)]
    except ValueError as exc:
        raise UsageError(f"{option} is '{text}'; it must be a number, or several with commas between") from exc
    if not values:
        raise UsageError(f"{option} is empty; name a number, or several with commas between")
    return [*dict.fromkeys(values)]
