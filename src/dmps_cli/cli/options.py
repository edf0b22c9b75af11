"""Every option once: its name, type, unit and help, in groups that a command takes whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dmps_cli.checks import SEED, choice
from dmps_cli.cli.completion import COMPLETE, complete_words
from dmps_cli.cli.console import Console
from dmps_cli.files.options import WHITE, WHITE_HELP
from dmps_cli.jobs.batch import Batch, OutputOptions
from dmps_cli.metrics.lpips import LPIPS_NETS
from dmps_cli.tasks.table import task as task_row
from dmps_cli.weights.options import DEVICE_HELP, DEVICE_NAMES, MODEL_HELP, OFFLINE_HELP, SEED_HELP, WEIGHTS_FILE_HELP

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...", help="Files, folders, quoted globs, or - for names on stdin.", show_default=False
    ),
]

White = Annotated[float | None, typer.Option("--white", metavar="N", help=WHITE_HELP), WHITE]

TaskName = Annotated[
    str | None,
    typer.Option("--task", "-t", metavar="NAME", help="See `dmps tasks`.", autocompletion=COMPLETE["tasks"]),
]

_SIGMA_HELP = (
    "Noise standard deviation of the measurement: 0.05 on the [-1, 1] scale, or 6.4/255, grey levels of 255, the same. "
)

_FILE_HELP = "FILE: of each value, an array of the measurement's shape, or a picture in grey levels. "

Sigma = Annotated[
    str | None,
    typer.Option("--sigma", metavar="STD|LEVELS/255", help=f"{_SIGMA_HELP}Default: the task's."),
]

SigmaOrFile = Annotated[
    str | None,
    typer.Option("--sigma", metavar="STD|LEVELS/255|FILE", help=f"{_SIGMA_HELP}{_FILE_HELP}Default: the task's."),
]

SigmaOrAuto = Annotated[
    str | None,
    typer.Option(
        "--sigma",
        metavar="STD|LEVELS/255|FILE|auto",
        help=f"{_SIGMA_HELP}{_FILE_HELP}auto: estimated from the picture. "
        "Default: that of its sidecar; auto without one.",
    ),
]

Sigmas = Annotated[str | None, typer.Option("--sigma", metavar="STD,STD", help=f"{_SIGMA_HELP}Default: the task's.")]
WeightsFile = Annotated[Path | None, typer.Option(metavar="FILE", help=WEIGHTS_FILE_HELP)]

Model = Annotated[
    str, typer.Option("--model", "-m", metavar="NAME|PATH", help=MODEL_HELP, autocompletion=COMPLETE["models"])
]

_DEVICES = "|".join(DEVICE_NAMES)
Device = Annotated[
    str, typer.Option("--device", metavar=_DEVICES, help=DEVICE_HELP, autocompletion=complete_words(_DEVICES))
]
Offline = Annotated[bool, typer.Option("--offline", help=OFFLINE_HELP)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes, no progress; errors stay.")]

Samplers = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="Samplers to compare, ddpm and flow. Default: --sampler.",
        autocompletion=COMPLETE["lists of samplers"],
    ),
]

Methods = Annotated[
    str | None,
    typer.Option(
        metavar="A,B", help="Methods to compare. Default: --method.", autocompletion=COMPLETE["lists of methods"]
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help=SEED_HELP), SEED]
LpipsNet = Annotated[
    str,
    typer.Option(
        metavar="|".join(LPIPS_NETS),
        help="Network of LPIPS; alex needs no download.",
        autocompletion=complete_words("|".join(LPIPS_NETS)),
    ),
    choice(LPIPS_NETS),
]


def checked_task(name: str | None, command: str | None = None) -> str | None:
    """Returns the name, if it is a task's or open.

    Raises UsageError with what it stands for otherwise, `tasks.task`.
    """
    if name is not None:
        task_row(name, command)
    return name


@dataclass(frozen=True, kw_only=True)
class OutputFlags(OutputOptions):
    """Where results go and what is said."""

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of paths and tables.")] = False
    quiet: Quiet = False

    def console(self) -> Console:
        """Returns the console that these flags ask for."""
        return Console(quiet=self.quiet, as_json=self.as_json)


def given_options(context: typer.Context) -> list[str]:
    """Returns the options that the command line names, by their long names, each once."""
    given = [p for p in context.command.params if p.name and p.param_type_name == "option"]
    return [p.opts[0] for p in given if getattr(context.get_parameter_source(p.name), "name", "") == "COMMANDLINE"]


def finish(batch: Batch, console: Console, facts: Mapping[str, Any]) -> None:
    """Prints the JSON object, with --json; leaves with the batch's exit code where an input failed."""
    console.object({**facts, **batch.described()})
    if code := batch.finish():
        raise typer.Exit(code)
