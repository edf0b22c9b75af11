"""`dmps demo`: the whole tool on bundled photographs, with no download."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmps_cli.checks import AS_TYPED
from dmps_cli.cli.console import Console
from dmps_cli.cli.groups import command_options
from dmps_cli.cli.options import Quiet
from dmps_cli.errors import DmpsError, OutputError
from dmps_cli.files.atomic import atomic_write, remove_left_overs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image


TASKS = ("sr4", "deblur", "denoise", "inpaint")
SAMPLERS = ("ddpm", "flow")
PHOTOS = ("chelsea.png", "coffee.png")
VALUES = ("psnr", "ssim", "lpips", "seconds")
SHEET = "contact_sheet.png"


@command_options
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where it all goes.")] = Path("demo"),
    nfe: Annotated[
        int | None, typer.Option(metavar="N", help="Network evaluations per image. Default: the preset."), AS_TYPED
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Degrade and restore bundled photographs: four tasks, DDPM and flow levels, one table, one contact sheet.

    It runs the commands that it prints; each can be run alone. No download.

    Example: dmps demo --output demo --nfe 20
    """
    from dmps_cli.files.images import photo_paths, png_bytes

    sheet_path = output / SHEET
    if sheet_path.exists() and not overwrite:
        raise OutputError(f"{sheet_path} exists; --overwrite makes it anew, -o writes to another folder")
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
            run(["restore", str(output / task), *options, *common], console)
    rows = [read_row(output, task, photo) for task in TASKS for photo in PHOTOS]
    remove_left_overs([sheet_path])
    atomic_write(sheet_path, png_bytes(draw(rows)), overwrite=overwrite)
    console.table([row for drawn in rows for row in drawn.table()])
    console.path(sheet_path)


def run(arguments: Sequence[str], console: Console) -> None:
    """Runs a command in this process, as the shell would. Raises DmpsError if it fails."""
    from dmps_cli.cli.main import app

    console.note(f"$ dmps {shlex.join(arguments)}")
    with contextlib.redirect_stdout(io.StringIO()):
        code = app(list(arguments), standalone_mode=False)
    if code:
        raise DmpsError(f"dmps {arguments[0]} failed")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One photograph and task: pictures (truth, measurement, one per sampler) and the sidecar of each sampler."""

    task: str
    photo: str
    pictures: tuple[Path, ...]
    sidecars: dict[str, dict[str, Any]]

    def table(self) -> list[dict[str, Any]]:
        """Returns a row per sampler."""
        return [
            {"task": self.task, "photo": self.photo, "sampler": sampler, "nfe": facts["nfe"]}
            | {name: facts[name] for name in VALUES}
            for sampler, facts in self.sidecars.items()
        ]


def read_row(output: Path, task: str, photo: str) -> Result:
    """Returns what the commands wrote for a photograph and a task."""
    stem = f"{Path(photo).stem}_{task}"
    restored = [output / task / sampler / f"{stem}_restored.png" for sampler in SAMPLERS]
    sidecars = [json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) for path in restored]
    return Result(
        task=task,
        photo=photo,
        pictures=(output / "truth" / photo, output / task / f"{stem}.png", *restored),
        sidecars=dict(zip(SAMPLERS, sidecars, strict=True)),
    )


def draw(results: Sequence[Result]) -> Image.Image:
    """Returns the contact sheet: a row per photograph and task, PSNR and LPIPS under each restoration."""
    from PIL import Image

    from dmps_cli.report.sheets import SheetCell, SheetRow, contact_sheet, score_caption

    def sheet_row(result: Result) -> SheetRow:
        captions = ["", "", *map(score_caption, result.sidecars.values())]
        pictures = [
            SheetCell(image=Image.open(path), caption=caption)
            for path, caption in zip(result.pictures, captions, strict=True)
        ]
        return SheetRow(label=result.task, note=Path(result.photo).stem, pictures=pictures)

    facts = results[0].sidecars
    first = facts[SAMPLERS[0]]
    counts = ", ".join(f"{sampler} {sidecar['nfe']}" for sampler, sidecar in facts.items())
    footnote = f"prior {first['model']}, {first['dtype']}; NFE: {counts}; LPIPS: alex"
    return contact_sheet(["truth", "measurement", "DDPM", "flow"], [*map(sheet_row, results)], footnote=footnote)
