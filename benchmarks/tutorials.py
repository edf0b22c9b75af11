"""Follows the tutorials: runs their commands, and writes what these said, and the pictures, into the pages.

`python benchmarks/tutorials.py WORK [PAGE...] [--options "--dtype bfloat16"]`; WORK: a folder, made for each page.

A page has, beside prose, blocks of `sh`, run in order in an empty folder (a here-document is one command);
`<!-- output -->` before a block of `text`, which is what the `sh` before it said; and
`<!-- picture FILE of TRUTH | title: FILE | ... -->`, a row of pictures with the PSNR of each.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("tutorials/first.md", "own_picture.md", "tutorials/compare.md", "tutorials/train.md")
SHELL = re.compile(r"(?m)^.*<<'END'$[\s\S]*?^END$|^.+$")
PART = re.compile(
    r"```sh\n(?P<sh>.*?)```|(?P<mark><!-- output -->\n```text\n).*?```|<!-- picture (?P<picture>.*?) -->", re.DOTALL
)
CELL = 256  # px of a picture in a row


def commands(text: str) -> list[str]:
    """Returns what a page says to type, in order; a here-document is one command."""
    return [command for part in PART.finditer(text) if part["sh"] for command in SHELL.findall(part["sh"])]


def shortened(command: str) -> list[str]:
    """Returns the words after `dmps` of a command that shall take no time: one evaluation, one step, one picture."""
    words = shlex.split(command)[1:]
    if words[0] == "restore":
        return [*words, "--nfe", "1"]
    if words[0] == "eval":
        return [*words, "--nfe", "1", "--limit", "1", "--image-size", "64"]
    if words[0] == "train":
        at = words.index("--minutes")
        short = [*words[:at], "--steps", words[at + 1], *words[at + 2 :]]
        return short if "--resume" in words else [*short, "--batch", "1", "--crop", "32"]
    return words


def run(command: str, folder: Path, options: list[str]) -> str:
    """Runs it in the folder, `dmps` as this Python has it; returns what it says. SystemExit where it fails."""
    words = shlex.split(command) if command.startswith("dmps") else []
    if words[1:2] == ["restore"]:
        command = shlex.join([*words, *options])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    lines = f'dmps() {{ "{sys.executable}" -m dmps_cli "$@"; }}\n{command}\n'
    done = subprocess.run(
        ["bash", "-c", lines],
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "110"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(f"$ {command}\n{done.stdout}", flush=True)
    if done.returncode:
        sys.exit(f"failed: {command}")
    return done.stdout


def drawn(wanted: str, folder: Path, page: Path) -> None:
    """Writes a row of pictures: the truth, and files with their PSNR; of the truth its middle where a file is smaller.

    wanted: 'FILE of TRUTH | title: FILE | ...'.
    """
    from PIL import Image

    from dmps_cli.files.images import load_rgb
    from dmps_cli.metrics.table import psnr
    from dmps_cli.report.sheets import SheetCell, SheetRow, contact_sheet

    head, *rest = wanted.split(" | ")
    target, reference = head.split(" of ")
    named = dict(each.split(": ") for each in rest)
    truth = load_rgb(folder / reference).pixels[None]
    pictures = [SheetCell(image=Image.open(folder / reference).convert("RGB"))]
    for name in named.values():
        image = Image.open(folder / name).convert("RGB")
        x = load_rgb(folder / name).pixels[None]
        rows, cols = (have - shown for have, shown in zip(truth.shape[2:], x.shape[2:], strict=True))
        is_part = rows + cols < min(truth.shape[2:]) // 2
        part = truth[..., rows // 2 : rows // 2 + x.shape[2], cols // 2 : cols // 2 + x.shape[3]]
        pictures.append(SheetCell(image=image, caption=f"{psnr(x, part):.1f} dB" if is_part else ""))
    sheet = contact_sheet(["photograph", *named], [SheetRow(label="", pictures=pictures)], cell=CELL)
    (page.parent / target).parent.mkdir(exist_ok=True)
    sheet.save(page.parent / target, quality=88)


def follow(page: Path, folder: Path, options: list[str]) -> None:
    """Runs a page's commands in the folder, and writes the page anew."""
    folder.mkdir(parents=True)
    text, said, parts, at = page.read_text(encoding="utf-8"), "", [], 0
    for part in PART.finditer(text):
        if part["sh"]:
            said = "".join(run(command, folder, options) for command in SHELL.findall(part["sh"]))
        elif part["mark"]:
            parts += [text[at : part.start()], part["mark"], said, "```"]
            at = part.end()
        else:
            drawn(part["picture"], folder, page)
    page.write_text("".join([*parts, text[at:]]), encoding="utf-8")


def main() -> None:
    """Follows all pages, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("pages", nargs="*", default=PAGES)
    parser.add_argument("--options", default="", help="for every `dmps restore`")
    arguments = parser.parse_args()
    for name in arguments.pages:
        follow(DOCS / name, arguments.work / Path(name).stem, shlex.split(arguments.options))


if __name__ == "__main__":
    main()
