"""`dmps demo`: the whole tool on bundled photographs, with no download."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmps_cli.cli.console import Console
from dmps_cli.cli.options import ComputeFlags, command_options
from dmps_cli.errors import DmpsError, OutputError
from dmps_cli.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Sequence

TASKS = ("sr4", "deblur", "denoise", "colorize", "inpaint")
SAMPLERS = ("ddpm", "flow")
PHOTOS = ("chelsea.png", "coffee.png")
METRICS = ("psnr", "ssim", "lpips")


@command_options
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where it all goes.")] = Path("demo"),
    nfe: Annotated[
        int | None, typer.Option(metavar="N", help="Network evaluations per image. Default: the preset.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes, no progress; errors stay.")] = False,
) -> None:
    """Degrade and restore bundled photographs: five tasks, DDPM and flow levels, one table, one contact sheet.

    It runs the commands that it prints; each can be run alone. No download.

    Example: dmps demo --output demo --nfe 10
    """
    from dmps_cli.images import encode, photo_paths

    sheet_path = output / SHEET
    if sheet_path.exists() and not overwrite:
        raise OutputError(f"{sheet_path} exists; --overwrite replaces it")
    console = Console(quiet=quiet)
    photos = output / "truth"
    for path in photo_paths():
        if path.name in PHOTOS:
            atomic_write(photos / path.name, path.read_bytes(), overwrite=overwrite)
    common = ["--overwrite"] * overwrite + ["--quiet"] * quiet
    for task in TASKS:
        run(["degrade", str(photos), "--task", task, "-o", str(output / task), *common], console)
        for sampler in SAMPLERS:
            options = ["--sampler", sampler, "--reference", str(photos), "-o", str(output / task / sampler)]
            options += ["--nfe", str(nfe)] if nfe is not None else []
            run(["restore", f"{output / task}/*.png", *options, *common], console)
    rows = [read_row(output, task, photo) for task in TASKS for photo in PHOTOS]
    finish(rows, sheet_path, console, overwrite)


def run(arguments: Sequence[str], console: Console) -> None:
    """Runs a command in this process, as the shell would. Raises DmpsError if it fails."""
    from dmps_cli.cli.main import app

    console.note(f"$ dmps {shlex.join(arguments)}")
    with contextlib.redirect_stdout(io.StringIO()):
        code = app(list(arguments), standalone_mode=False)
    if code:
        raise DmpsError(f"dmps {arguments[0]} failed")


def read_row(output: Path, task: str, photo: str) -> Row:
    """The pictures and the sidecars of one photograph and task."""
    stem = f"{Path(photo).stem}_{task}"
    restored = {sampler: output / task / sampler / f"{stem}_restored.png" for sampler in SAMPLERS}
    sidecars = {
        sampler: json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) for sampler, path in restored.items()
    }
    return Row(
        task=task, photo=photo, pictures=[output / "truth" / photo, output / task / f"{stem}.png", *restored.values()],
        sidecars=sidecars,
    )
