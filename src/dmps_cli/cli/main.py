"""The app: registers the commands; the only place that turns a DmpsError into a line and an exit code."""

from __future__ import annotations

import functools
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dmps_cli import __version__, processes
from dmps_cli.cli.console import Console, ReaderLeftError, StdoutError, whole_stdout
from dmps_cli.cli.degrade import degrade
from dmps_cli.cli.demo import demo
from dmps_cli.cli.doctor import doctor
from dmps_cli.cli.eval import evaluate
from dmps_cli.cli.groups import reflowed
from dmps_cli.cli.models import MODELS
from dmps_cli.cli.restore import restore
from dmps_cli.cli.score import score
from dmps_cli.cli.tasks import tasks
from dmps_cli.cli.time import time
from dmps_cli.cli.train import train
from dmps_cli.errors import DmpsError, SaidElsewhereError, UsageError, interrupts, memory_errors
from dmps_cli.text import visible_bytes

INTERRUPTED = 130
READER_LEFT = 141
"""What a shell says of a program that SIGPIPE ends: others end by it where the reader of their output leaves."""


@contextmanager
def _readable_complaints() -> Iterator[None]:
    """Typer's complaints of the command line show the controls that an argument holds, a file's name for one."""
    try:
        yield
    except Exception as exc:
        if hasattr(exc, "format_message") and isinstance(message := getattr(exc, "message", None), str):
            exc.message = visible_bytes(message)  # type: ignore[attr-defined]
        raise


class _Group(TyperGroup):
    """Typer's own; complaints come from the first of these or, of a command's options, from the second."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _readable_complaints():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _readable_complaints():
            return super().invoke(ctx)


app = typer.Typer(
    name="dmps",
    cls=_Group,
    help="Restore degraded pictures by diffusion-model posterior sampling (DMPS, Meng & Kabashima 2024).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"dmps {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass  # --version has printed and left


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
    """Ctrl-C is Ctrl-C even where a package that was being imported makes another error of it."""

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


COMMANDS: dict[str, Callable[..., None]] = {
    "restore": restore,
    "degrade": degrade,
    "eval": evaluate,
    "score": score,
    "time": time,
    "train": train,
    "tasks": tasks,
    "demo": demo,
    "doctor": doctor,
}


for name, function in COMMANDS.items():
    app.command(name)(guarded(function))


models_app = typer.Typer(name="models", help="List, show, fetch and verify checkpoints.", no_args_is_help=True)


for name, function in MODELS.items():
    models_app.command(name)(guarded(function))


app.add_typer(models_app)


def main() -> None:
    """Runs the `dmps` script."""
    # How long a thread of GNU OpenMP spins before it sleeps. By its default, another busy program slows a network down
    # eightfold on two cores; this costs 2 % on an idle machine (docs/speed.md). Read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    for side in ("COLUMNS", "LINES"):  # rich takes them as numbers
        if not re.fullmatch(r"[0-9]{1,4}", os.environ.get(side, "")):
            os.environ.pop(side, None)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may be bytes that are no text; None where closed
            stream.reconfigure(errors="surrogateescape" if stream.errors == "strict" else None)
    try:
        with whole_stdout():  # of help, version and completion, which Typer prints
            app()
    except StdoutError as exc:
        sys.exit(stdout_failed(exc))
