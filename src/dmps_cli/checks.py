"""What the value of an option may be: each rule once, for the command line, the library and what is read from files.

A value that is none is one sentence everywhere: '--scale is 1; expected a whole number from 2 to 64'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

from dmps_cli.errors import UsageError, near, unknown_name
from dmps_cli.units import MAX_SIGMA, MIN_SIGMA

T = TypeVar("T")
MAX_SEED, MAX_SAMPLES = 2**63 - 1, 10_000
FLOAT32_MAX = 3.4e38
_SHOWN = 60  # characters of a value in a message


# --- Rules
@dataclass(frozen=True, kw_only=True)
class Rule(Generic[T]):
    """What a value may be. what: in words; read: the value as it is meant, raises ValueError for one that is none.

    A value may be typed (a text), given in Python or read from a file. words: of which the nearest is suggested.
    """

    what: str
    read: Callable[[Any], T]
    words: tuple[str, ...] = ()

    def __call__(self, name: str, value: Any, error: Callable[[str], Exception] = UsageError) -> T:
        """Returns the value as it is meant. Raises the error, saying of which option it is and what was expected."""
        try:
            return self.read(value)
        except (TypeError, ValueError, OverflowError):
            raise error(f"{name} is {shown(value)}; {near(str(value), self.words)}expected {self.what}") from None


def shown(value: object) -> str:
    """Returns a value as a message names it, which is not long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def whole(least: int, most: int | None = None, *, unit: str = "", multiple: int = 1, odd: bool = False) -> Rule[int]:
    """Returns the rule of whole numbers within bounds, as wide as they come; odd ones, or multiples, alone."""
    kind = "an odd number" if odd else "a whole number" if multiple == 1 else f"a multiple of {multiple}"

    def read(value: Any) -> int:
        number = int(value)  # not through float, which has 53 bits
        if isinstance(value, bool) or not (isinstance(value, str) or number == value):
            raise ValueError
        if number < least or (most is not None and number > most) or number % multiple or (odd and number % 2 == 0):
            raise ValueError
        return number

    return Rule(what=_kind(kind, unit) + _between(least, most), read=read)


def real(
    least: float, most: float | None = None, *, unit: str = "", above: bool = False, below: bool = False
) -> Rule[float]:
    """Returns the rule of numbers within bounds, finite in float32; above, below: whether the bound itself is none."""
    end = FLOAT32_MAX if most is None else most

    def read(value: Any) -> float:
        number = float(value)
        is_inside = (least < number if above else least <= number) and (number < end if below else number <= end)
        if isinstance(value, bool) or not is_inside:
            raise ValueError
        return number

    return Rule(what=_kind("a number", unit) + _between(least, most, above=above, below=below), read=read)


def reals(counts: Collection[int], what: str, is_right: Callable[[list[float]], bool]) -> Rule[list[float]]:
    """Returns the rule of so many finite numbers, with commas between or as a list."""

    def read(value: Any) -> list[float]:
        numbers = [float(part) for part in (value.split(",") if isinstance(value, str) else list(value))]
        if len(numbers) not in counts or not all(map(math.isfinite, numbers)) or not is_right(numbers):
            raise ValueError
        return numbers

    return Rule(what=what, read=read)


def choice(choices: Iterable[T], what: str = "") -> Rule[T]:
    """Returns the rule of a few values, words for the most part."""
    values = (*choices,)

    def read(value: Any) -> T:
        if value not in values:
            raise ValueError
        return values[values.index(value)]

    words = tuple(value for value in values if isinstance(value, str))
    return Rule(what=what or f"one of {', '.join(map(str, values))}", read=read, words=words)


def or_none(rule: Rule[T], word: str | None = None) -> Rule[T | None]:
    """Returns the rule that None fulfils too, or the word that stands for it."""
    what = rule.what if word is None else f"{rule.what}, or {word}"
    return Rule(what=what, read=lambda value: None if value is None or value == word else rule.read(value))


def _kind(kind: str, unit: str) -> str:
    return kind if not unit else f"{kind} {unit}" if kind[-1].isdigit() else f"{kind} of {unit}"


def _between(least: float, most: float | None, *, above: bool = False, below: bool = False) -> str:
    """Returns ' from 1 to 64', or what it is where a bound is missing or none of the numbers."""
    if most is not None and not above and not below:
        return f" from {_bound(least)} to {_bound(most)}"
    start = f", {'above' if above else 'at least'} {_bound(least)}"
    return start if most is None else f"{start} and {'below' if below else 'at most'} {_bound(most)}"


def _bound(number: float) -> str:
    return "2^63 - 1" if number == MAX_SEED else str(number) if isinstance(number, int) else f"{number:g}"


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _sigma(value: Any) -> float:
    if isinstance(value, str | bool) or not (value == 0.0 or MIN_SIGMA <= value <= MAX_SIGMA):
        raise ValueError
    return float(value)


TRUTH = Rule(what="true or false", read=_truth)
SEED = whole(0, MAX_SEED)
SAMPLES = whole(1, MAX_SAMPLES)
SIGMA = Rule(what=f"0, or a number from {MIN_SIGMA:g} to {MAX_SIGMA:g} on [-1, 1]", read=_sigma)
"""A standard deviation of noise that float32 can tell from 0 and from infinity."""


def typed(text: Any) -> Any:
    """Returns the number that a text is, or the text."""
    if isinstance(text, str):
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return text


AS_TYPED: Rule[Any] = Rule(what="a value", read=typed)
"""What another choice settles: the bounds of a knob are its method's."""


# --- Options
def option(
    help: str,
    metavar: str | None = None,
    *,
    names: tuple[str, ...] = (),
    default: Any = None,
    complete: str = "",
    rule: Rule[Any] | None = None,
) -> Any:
    """Returns a field of a record of options, which the command line shows as it is described here.

    names: how it is written, where that is not its own name; complete: the table whose names its values are; rule: what
    its value may be; None: what its type says, or a text that is judged with others.
    """
    said = {"help": help, "metavar": metavar, "names": names, "complete": complete, "rule": rule}
    return field(default=default, metadata=said)


def check_fields(options: Any) -> None:
    """Asks the rule of each field of a record of options that is not left open. Raises UsageError."""
    for described in fields(options):
        rule, value = described.metadata.get("rule"), getattr(options, described.name)
        if rule is not None and value is not None:
            rule(option_name(described.name, described.metadata["names"]), value)


def option_name(name: str, declared: Sequence[str] = ()) -> str:
    """Returns how an option is written on the command line."""
    return next((word for word in declared if word.startswith("--")), flag(name))


def flag(option: str) -> str:
    """Returns how an option of that name is written on the command line."""
    return "--" + option.replace("_", "-")


# --- What is typed
def checked(kind: str, name: str, choices: Collection[str]) -> str:
    """Returns the name, if it is one of a table's. Raises UsageError with the nearest one otherwise."""
    if name not in choices:
        raise unknown_name(kind, name, choices)
    return name


def split(names: str | None) -> list[str]:
    """Returns the names of a comma-separated list, each once."""
    return [*dict.fromkeys(name.strip() for name in (names or "").split(",") if name.strip())]


def listed(option: str, text: str | None, read: Callable[[str], T]) -> list[T | None]:
    """Returns the values of a comma-separated list, each once; [None] for an open option.

    Raises UsageError, as `read` does.
    """
    if text is None:
        return [None]
    values = [read(part) for part in split(text)]
    if not values:
        raise UsageError(f"{option} is empty; expected a value, or several with commas between")
    return [*dict.fromkeys(values)]
