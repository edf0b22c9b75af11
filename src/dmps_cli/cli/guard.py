"""What stands around every command: the only place that turns errors into a line and an exit code."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from dmps_cli import processes
from dmps_cli.cli.console import Console
from dmps_cli.cli.groups import reflowed
from dmps_cli.cli.streams import ReaderLeftError, StdoutError
from dmps_cli.errors import DmpsError, SaidElsewhereError, UsageError, interrupts, memory_errors

INTERRUPTED = 130
READER_LEFT = 141
"""What a shell says of a program that SIGPIPE ends: others end by it where the reader of their output leaves."""


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Returns the command, with errors meant for a person printed as one line and Ctrl-C as exit code 130."""

    @functools.wraps(command)
    def run(**values: object) -> None:
        try:
            with memory_errors(), ctrl_c_counts():
                command(**values)
        except DmpsError as exc:
            if not (processes.rank() and isinstance(exc, (UsageError, SaidElsewhereError))):  # the same for every rank
                Console().error(str(exc))
            raise typer.Exit(exc.exit_code) from exc
        except KeyboardInterrupt as exc:
            if not processes.rank():
                Console().error("interrupted; finished files are kept")
            raise typer.Exit(INTERRUPTED) from exc
        except StdoutError as exc:
            raise typer.Exit(stdout_failed(exc)) from exc
        except OSError as exc:  # of a name that the system does not take, which no command foresaw
            Console().error(f"{exc.filename or 'the system says'}: {exc.strerror or exc}")
            raise typer.Exit(DmpsError.exit_code) from exc

    run.__doc__ = reflowed(command.__doc__ or "")
    return run


def stdout_failed(error: StdoutError) -> int:
    """Returns the exit code; said is what went wrong, not that a reader has left."""
    if isinstance(error, ReaderLeftError):
        return READER_LEFT
    Console().error(f"cannot write to standard output ({error}); finished files are kept")
    return DmpsError.exit_code


@contextmanager
def ctrl_c_counts() -> Iterator[None]:
    """Lets Ctrl-C be Ctrl-C even where a package that was being imported makes another error of it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) not in (
        signal.default_int_handler,
        None,
    ):  # a host's own handling stays
        yield
        return
    interrupts.clear()
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except (DmpsError, StdoutError, OSError, typer.Exit, typer.Abort):  # these are what they say
        raise
    except Exception as exc:
        if interrupts:
            raise KeyboardInterrupt from exc
        raise
    finally:
        interrupts.clear()
        signal.signal(signal.SIGINT, signal.default_int_handler)
