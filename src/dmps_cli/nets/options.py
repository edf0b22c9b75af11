"""A network's options as its own code names them, read strictly: a wrong value is one sentence, not a wrong network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from dmps_cli.errors import OptionsError

_REQUIRED = object()


@dataclass(frozen=True)
class Options:
    """Options of a network, from TOML or JSON. kind: the network's name; where: what they were read from."""

    values: Mapping[str, object]
    kind: str
    where: str

    def refuse(self, name: str, what: str) -> NoReturn:
        """Raises OptionsError: the option must be `what`."""
        value = self.values.get(name)
        raise OptionsError(f"{self.where}: the {self.kind} option {name} is {value!r}; it must be {what}")

    def integer(self, name: str, default: object = _REQUIRED, least: int = 1) -> int:
        """A whole number; -1 stands for none where the reference has it so. Raises OptionsError."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or (value < least and value != default):
            self.refuse(name, f"a whole number, at least {least}")
        return value

    def boolean(self, name: str, *, default: bool = False) -> bool:
        """true or false. Raises OptionsError."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            self.refuse(name, "true or false")
        return value

    def integers(self, name: str, default: object = _REQUIRED) -> list[int]:
        """Whole numbers, at least 1: a list, or a text with commas. Raises OptionsError."""
        numbers = self.numbers(name, default)
        if any(number != int(number) for number in numbers):
            self.refuse(name, "whole numbers, as 32,16,8")
        return [int(number) for number in numbers]

    def numbers(self, name: str, default: object = _REQUIRED) -> list[float]:
        """Positive numbers: a list, or a text with commas. Raises OptionsError."""
        value = self._value(name, default)
        parts = value.split(",") if isinstance(value, str) else value
        try:
            numbers = [float(part) for part in parts]  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            numbers = []
        if not numbers or not all(0.0 < number < float("inf") for number in numbers):
            self.refuse(name, "positive numbers, as 1,2,4")
        return numbers

    def _value(self, name: str, default: object) -> object:
        if name not in self.values and default is _REQUIRED:
            raise OptionsError(f"{self.where}: the {self.kind} option {name} is missing; add it")
        return self.values.get(name, default)
