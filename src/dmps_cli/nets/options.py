"""A network's options as its own code names them, read strictly: a wrong value is one sentence, not a wrong network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from dmps_cli.checks import TRUTH, Rule, reals, whole
from dmps_cli.errors import OptionsError

T = TypeVar("T")

MAX_BLOCKS, MAX_LEVELS, MAX_WIDTH = 64, 16, 2**16
"""Of a level, of a network, of channels or px: far beyond any that was published, and still built in seconds."""

_LEVELS = reals(
    range(1, MAX_LEVELS + 1),
    f"at most {MAX_LEVELS} positive numbers, as 1,2,4, none above {MAX_WIDTH}",
    lambda numbers: all(0.0 < number <= MAX_WIDTH for number in numbers),
)
_WHOLE_LEVELS = reals(
    range(1, MAX_LEVELS + 1),
    f"at most {MAX_LEVELS} whole numbers, as 32,16,8, from 1 to {MAX_WIDTH}",
    lambda numbers: all(1 <= number <= MAX_WIDTH and number == int(number) for number in numbers),
)
_REQUIRED = object()


@dataclass(frozen=True)
class NetworkOptions:
    """Options of a network, from TOML or JSON. kind: the network's name; where: what they were read from."""

    values: Mapping[str, object]
    kind: str
    where: str

    def integer(self, name: str, default: object = _REQUIRED, most: int = MAX_WIDTH) -> int:
        """Returns a whole number from 1 on; -1 stands for none where the reference has it so. Raises OptionsError."""
        value = self._value(name, default)
        return -1 if value == default == -1 else self._checked(name, value, whole(1, most))

    def boolean(self, name: str, *, default: bool = False) -> bool:
        """Returns true or false. Raises OptionsError."""
        return self._checked(name, self._value(name, default), TRUTH)

    def integers(self, name: str, default: object = _REQUIRED) -> list[int]:
        """Returns whole numbers, at least 1: a list, or a text with commas. Raises OptionsError."""
        return [int(number) for number in self._checked(name, self._value(name, default), _WHOLE_LEVELS)]

    def numbers(self, name: str, default: object = _REQUIRED) -> list[float]:
        """Returns positive numbers: a list, or a text with commas. Raises OptionsError."""
        return self._checked(name, self._value(name, default), _LEVELS)

    def _checked(self, name: str, value: object, rule: Rule[T]) -> T:
        return rule(f"{self.where}: the {self.kind} option {name}", value, OptionsError)

    def _value(self, name: str, default: object) -> object:
        if name not in self.values and default is _REQUIRED:
            raise OptionsError(f"{self.where}: the {self.kind} option {name} is missing; add it")
        return self.values.get(name, default)
