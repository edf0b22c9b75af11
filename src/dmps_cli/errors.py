"""Errors that a person at the terminal can do something about.

Each carries one sentence (what is wrong, with the value, and what to do next) and the exit code of
the command. `cli/guard.py` alone turns them into a line on stderr; everything else is a bug of ours
and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar


class DmpsError(Exception):
    """Something could not be done. Exit code 1."""

    exit_code: ClassVar[int] = 1


class InputError(DmpsError):
    """A file cannot be read, or does not hold what the command needs."""


class OutputError(DmpsError):
    """A file cannot be written (exists already, no room, no permission)."""


class WeightsError(DmpsError):
    """A checkpoint is missing, damaged, or of another architecture."""


class OptionsError(WeightsError):
    """Options that make no network."""


class ConvergenceError(DmpsError):
    """An iterative solve stopped before its tolerance was met."""


class NumericsError(DmpsError):
    """NaN or infinity where numbers were due."""


class MemoryShortageError(DmpsError):
    """The device or the machine has too little memory for the work."""


class SaidElsewhereError(DmpsError):
    """What another process of the same `torchrun` says, so that it is said once."""


interrupts: list[int] = []
"""Ctrl-C so far in the command that runs: an import that it cut in two may fail in any way, then or later."""


@contextmanager
def memory_errors(advice: str = "take --batch-size 1, --dtype bfloat16 or a smaller picture") -> Iterator[None]:
    """Turns a failed allocation, on the device or on the CPU, into a MemoryShortageError for the user."""
    try:
        yield
    except (MemoryError, RuntimeError) as exc:
        # torch's own class for a GPU is a RuntimeError; its CPU allocator has only a text
        if isinstance(exc, RuntimeError) and not any(text in str(exc) for text in _ALLOCATION_FAILED):
            raise
        raise MemoryShortageError(f"out of memory; {advice}") from exc


_ALLOCATION_FAILED = ("can't allocate memory", "out of memory", "Storage size calculation overflowed")


class UsageError(DmpsError):
    """The command line contradicts itself or names something unknown. Exit code 2."""

    exit_code: ClassVar[int] = 2


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> UsageError:
    """Returns the error for a name that is in no table, with the nearest one suggested."""
    known = sorted(choices)
    return UsageError(f"unknown {kind} '{name}'; {near(name, known)}choose one of {', '.join(known)}")


def near(name: str, choices: Sequence[str]) -> str:
    """Returns the question whether the nearest of the choices was meant, with a space behind; empty if none is near."""
    found = difflib.get_close_matches(name.lower(), choices, n=1, cutoff=0.5)
    return f"did you mean '{found[0]}'? " if found else ""
