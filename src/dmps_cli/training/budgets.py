"""How long a training goes on, over all its calls: minutes of the clock, or steps of the optimizer.

By steps, a run depends on its options alone: the same command gives the same weights, however fast the machine is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Budget(ABC):
    """amount: in the budget's own unit; option: as it is named on the command line and in a recipe."""

    amount: float
    option: ClassVar[str]
    unit: ClassVar[str]

    def __str__(self) -> str:
        return f"{self.amount:.10g} {self.unit}"

    @property
    @abstractmethod
    def total(self) -> float:
        """What `spent` is at the end."""

    @abstractmethod
    def spent(self, step: int, seconds: float) -> float:
        """Returns how far a training is after so many steps and seconds: 0 to `total`, and beyond."""

    @abstractmethod
    def seconds_left(self, step: int, seconds: float, steps_per_second: float) -> float:
        """Returns the seconds until the end, at that speed."""

    @abstractmethod
    def so_far(self, step: int, seconds: float) -> str:
        """Returns '1.5/120 min' or '12.5%'."""

    def share(self, step: int, seconds: float) -> float:
        """Returns what is used up: 0 to 1, and beyond."""
        return self.spent(step, seconds) / self.total


class Minutes(Budget):
    """Of the clock, validation and checkpoints included."""

    option, unit = "minutes", "min"

    @property
    def total(self) -> float:
        """Seconds."""
        return 60.0 * self.amount

    def spent(self, step: int, seconds: float) -> float:
        """Returns seconds."""
        return seconds

    def seconds_left(self, step: int, seconds: float, steps_per_second: float) -> float:
        """Returns them whatever the speed."""
        return max(self.total - seconds, 0.0)

    def so_far(self, step: int, seconds: float) -> str:
        """Returns '1.5/120 min'."""
        return f"{seconds / 60:.1f}/{self.amount:g} min"


class Steps(Budget):
    """Of the optimizer."""

    option, unit = "steps", "steps"

    @property
    def total(self) -> float:
        """Steps."""
        return self.amount

    def spent(self, step: int, seconds: float) -> float:
        """Returns steps."""
        return step

    def seconds_left(self, step: int, seconds: float, steps_per_second: float) -> float:
        """Returns them at the speed so far."""
        return max(self.amount - step, 0.0) / max(steps_per_second, 1e-9)

    def so_far(self, step: int, seconds: float) -> str:
        """Returns '12.5%'."""
        return f"{step / self.amount:.1%}"


def budget_of(minutes: float | None, steps: int | None) -> Budget:
    """Returns the one that is given. ValueError unless it is exactly one, and positive."""
    if (minutes is None) == (steps is None) or not (minutes or steps or 0) > 0:
        raise ValueError(f"minutes is {minutes} and steps is {steps}; exactly one of them must be given, above 0")
    return Minutes(amount=minutes) if minutes is not None else Steps(amount=steps or 0)
