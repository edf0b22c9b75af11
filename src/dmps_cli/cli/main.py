"""The app: registers the commands, each guarded (`cli.guard`)."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from dmps_cli import __version__
from dmps_cli.cli.commands import Command, Group
from dmps_cli.cli.degrade import degrade
from dmps_cli.cli.demo import demo
from dmps_cli.cli.doctor import doctor
from dmps_cli.cli.eval import evaluate
from dmps_cli.cli.guard import guarded, stdout_failed
from dmps_cli.cli.help import help_of
from dmps_cli.cli.methods import methods
from dmps_cli.cli.models import MODELS
from dmps_cli.cli.restore import restore
from dmps_cli.cli.score import score
from dmps_cli.cli.streams import StdoutError, whole_stdout
from dmps_cli.cli.tasks import tasks
from dmps_cli.cli.time import time
from dmps_cli.cli.train import train

app = typer.Typer(
    name="dmps",
    cls=Group,
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


COMMANDS: dict[str, Callable[..., None]] = {
    "restore": restore,
    "degrade": degrade,
    "eval": evaluate,
    "score": score,
    "time": time,
    "train": train,
    "tasks": tasks,
    "methods": methods,
    "demo": demo,
    "doctor": doctor,
    "help": help_of,
}


for name, function in COMMANDS.items():
    app.command(name, cls=Command)(guarded(function))


models_app = typer.Typer(
    name="models", cls=Group, help="List, show, fetch and verify checkpoints.", no_args_is_help=True
)


for name, function in MODELS.items():
    models_app.command(name, cls=Command)(guarded(function))


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
