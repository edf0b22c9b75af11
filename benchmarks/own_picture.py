"""Runs the commands of docs/own_picture.md and draws its pictures, docs/own_picture/*.jpg.

    python benchmarks/own_picture.py WORK [--options "--dtype bfloat16"]

WORK: an empty folder. Prints what each command said, for the page.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dmps_cli.files.images import load_rgb
from dmps_cli.metrics.table import psnr
from dmps_cli.report.sheets import SheetCell, SheetRow, contact_sheet

PAGE = Path(__file__).parent.parent / "docs" / "own_picture.md"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A row of pictures: the truth, and files that the page makes of it, each with its title."""

    truth: str
    files: dict[str, str]


SHEETS = {
    "phone": Sheet(
        truth="photos/coffee.png",
        files={"phone.png": "as it came", "phone_restored.png": "restored", "phone_half.png": "sigma too small"},
    ),
    "scan": Sheet(
        truth="photos/astronaut.png",
        files={"scan.png": "as it came", "scan_restored.png": "restored", "scan_thin.png": "mask too thin"},
    ),
    "moved": Sheet(
        truth="photos/rocket.png",
        files={
            "moved.png": "as it came",
            "moved_restored.png": "restored",
            "moved_told.png": "wrong angle",
            "moved_wrong.png": "wrong angle, auto",
        },
    ),
    "soft": Sheet(
        truth="photos/chelsea.png",
        files={
            "soft.png": "as it came",
            "soft_restored.png": "restored",
            "soft_told.png": "wrong kernel",
            "soft_wrong.png": "wrong kernel, auto",
        },
    ),
    "old": Sheet(
        truth="photos/camera.png",
        files={"old.png": "as it came", "old_restored.png": "restored", "old_colour.png": "in colour"},
    ),
}


def commands() -> list[str]:
    """What the page says to type, in order; a here-document is one command."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [command for block in blocks for command in re.findall(r"(?m)^.*<<'END'$[\s\S]*?^END$|^.+$", block)]


def run(command: str, folder: Path, options: list[str]) -> None:
    """Runs it in the folder, `dmps` as this Python has it, and prints what it says."""
    words = shlex.split(command) if command.startswith("dmps") else []
    if words[1:2] == ["restore"]:
        command = shlex.join([*words, *options])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    lines = f'dmps() {{ "{sys.executable}" -m dmps_cli "$@"; }}\n{command}\n'
    done = subprocess.run(
        ["bash", "-c", lines], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    print(f"$ {command}\n{done.stdout}{done.stderr}", flush=True)
    if done.returncode:
        sys.exit(f"failed: {command}")


def drawn(sheet: Sheet, folder: Path) -> Image.Image:
    """The truth and the files beside it, PSNR below; the middle of the truth where a file shows that alone."""
    truth = load_rgb(folder / sheet.truth).pixels[None]
    pictures = [SheetCell(image=Image.open(folder / sheet.truth).convert("RGB"))]
    for name in sheet.files:
        x = load_rgb(folder / name).pixels[None]
        rows, cols = (have - shown for have, shown in zip(truth.shape[2:], x.shape[2:], strict=True))
        part = truth[..., rows // 2 : rows // 2 + x.shape[2], cols // 2 : cols // 2 + x.shape[3]]
        pictures.append(SheetCell(image=Image.open(folder / name).convert("RGB"), caption=f"{psnr(x, part):.1f} dB"))
    return contact_sheet(["photograph", *sheet.files.values()], [SheetRow(label="", pictures=pictures)], cell=256)


def main() -> None:
    """Runs and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--options", default="", help="for every `dmps restore`")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for command in commands():
        run(command, arguments.work, shlex.split(arguments.options))
    for name, sheet in SHEETS.items():
        target = PAGE.parent / "own_picture" / f"{name}.jpg"
        target.parent.mkdir(exist_ok=True)
        drawn(sheet, arguments.work).save(target, quality=88)


if __name__ == "__main__":
    main()
