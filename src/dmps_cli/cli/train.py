"""`dmps train`: a prior from the user's own photographs."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from dmps_cli import __version__, processes
from dmps_cli.cli.console import Console
from dmps_cli.cli.groups import command_options
from dmps_cli.cli.options import Device, Quiet
from dmps_cli.errors import memory_errors
from dmps_cli.training.options import TrainingOptions
from dmps_cli.training.start import check_outputs, complete_run, find_start, train_on
from dmps_cli.weights.options import check_device


@command_options
def train(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Folders of photographs, with all subfolders.")
    ],
    training: TrainingOptions,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the path.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a prior on your own photographs, for --model of restore, eval and time.

    It is a denoiser for every noise level, of the architecture of the bundled prior. OUT is usable from the first
    checkpoint on; interrupted or killed, the same command with --resume OUT goes on where it was. `torchrun
    --nproc-per-node 8 -m dmps_cli train ...` shares each step among processes.

    Example: dmps train photos/ -o my_prior.safetensors --minutes 120
    """
    request = training.request(tuple(folders))
    check_device(device)
    console = Console(quiet=quiet, as_json=as_json)

    from dmps_cli.device import resolve_device, tune_allocator
    from dmps_cli.training.state import Files, sole_writer

    tune_allocator()
    place = processes.own_device(resolve_device(device))
    files = Files(prior=request.output)

    def occupy() -> None:
        if not processes.rank():
            check_outputs(request, files)
            console.check_path(files.prior)
            held.enter_context(sole_writer(files))

    with processes.group(), memory_errors("take a smaller --batch or --crop"), ExitStack() as held:
        processes.together(occupy)
        start = processes.together(lambda: find_start(request, console))
        trainer = processes.together(lambda: start.trainer(place))
        facts: dict[str, Any] = {"version": __version__, "command": "train", "device": str(place)}
        if trainer.share >= 1.0:
            complete_run(start, trainer, files, console)
        else:
            facts |= train_on(start, trainer, request, files, console)
    last = {} if not trainer.rows else {name: value for name, value in trainer.rows[-1].items() if name != "step"}
    console.object(
        {
            **last,
            **facts,
            "output": str(files.prior),
            "steps": trainer.step,
            "skipped_steps": trainer.bad_steps,
            "seconds": trainer.seconds,
        }
    )
    console.path(files.prior)
