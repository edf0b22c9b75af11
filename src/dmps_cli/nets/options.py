"""A network's options as its own code names them, read strictly: a wrong value is one sentence, not a wrong network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from dmps_cli.errors import OptionsError

MAX_BLOCKS, MAX_LEVELS, MAX_WIDTH = 64, 16, 2**16
"""Of a level, of a network, of channels or px: far beyond any that was published, and still built in seconds."""

_REQUIRED = object()


@dataclass(frozen=True)
class NetworkOptions:
    """Options of a network, from TOML or JSON. kind: the network's name; where: what they were read from."""

    values: Mapping[str, object]
    kind: str
    where: str

    def refuse(self, name: str, what: str) -> NoReturn:
        """Raises OptionsError: the option must be `what`."""
        value = repr(self.values.get(name))
        shown = value if len(value) <= 60 else f"{value[:57]}..."
        raise OptionsError(f"{self.where}: the {self.kind} option {name} is {shown}; it must be {what}")

    def integer(self, name: str, default: object = _REQUIRED, most: int = MAX_WIDTH) -> int:
        """Returns a whole number from 1 on; -1 stands for none where the reference has it so. Raises OptionsError."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or (not 1 <= value <= most and value != default):
            self.refuse(name, f"a whole number from 1 to {most}")
        return value

    def boolean(self, name: str, *, default: bool = False) -> bool:
        """Returns true or false. Raises OptionsError."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            self.refuse(name, "true or false")
        return value

    def integers(self, name: str, default: object = _REQUIRED) -> list[int]:
        """Returns whole numbers, at least 1: a list, or a text with commas. Raises OptionsError."""
        numbers = self.numbers(name, default)
        if any(number != int(number) for number in numbers):
            self.refuse(name, "whole numbers, as 32,16,8")
        return [int(number) for number in numbers]

    def numbers(self, name: str, default: object = _REQUIRED) -> list[float]:
        """Returns positive numbers: a list, or a text with commas. Raises OptionsError."""
        value = self._value(name, default)
        parts = value.split(",") if isinstance(value, str) else value
        try:
            numbers = [float(part) for part in parts]  # type: ignore[attr-defined]
        except (TypeError, ValueError, OverflowError):
            numbers = []
        if not 1 <= len(numbers) <= MAX_LEVELS or not all(0.0 < number <= MAX_WIDTH for number in numbers):
            self.refuse(name, f"at most {MAX_LEVELS} positive numbers, as 1,2,4, none above {MAX_WIDTH}")
        return numbers

    def _value(self, name: str, default: object) -> object:
        if name not in self.values and default is _REQUIRED:
            raise OptionsError(f"{self.where}: the {self.kind} option {name} is missing; add it")
        return self.values.get(name, default)
