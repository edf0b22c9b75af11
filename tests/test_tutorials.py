"""The tutorials, followed with as little computing as can be: what they say to type runs, and says what they show."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.tutorials import DOCS, PAGES, PART, commands, shortened
from dmps_cli.files.images import photo_paths
from tests.shell import Dmps

SIDE = 48  # px of the photographs here
WHOLE = ("astronaut",)  # scratches are drawn for 256 px
RESTORING = ("tutorials/first.md",)
"""Pages whose commands say the same whatever is computed, but for numbers."""


def shape(text: str) -> set[str]:
    """Its lines without numbers, rules and columns, and without what a picture's noise is like."""
    plain = (re.sub(r"estimated at .*|[\d.]+(e-?\d+)?|─+|\W", "", line) for line in text.splitlines())
    return {line for line in plain if line}


def typed(command: str) -> None:
    """Runs what is not `dmps`, with this Python as python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(["bash", "-c", command], check=True, env={**os.environ, "PATH": path}, capture_output=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs that every page begins with, small."""
    folder = tmp_path_factory.mktemp("photos")
    first = {commands((DOCS / name).read_text(encoding="utf-8"))[0] for name in PAGES}
    assert len(first) == 1
    typed(f"cd {folder} && {first.pop()}")
    copies = sorted((folder / "photos").glob("*.png"))
    assert [copy.name for copy in copies] == sorted(photo.name for photo in photo_paths())
    for copy in copies:
        with Image.open(copy) as photo:
            size = 256 if copy.stem in WHOLE else SIDE
            photo.crop((0, 0, size, size)).save(copy)
    return folder / "photos"


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_the_page_run(name: str, dmps: Dmps, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    page, said = (DOCS / name).read_text(encoding="utf-8"), ""
    for command in commands(page)[1:]:
        if not command.startswith("dmps "):
            typed(command)
            continue
        result = dmps(*shortened(command))
        assert result.code == 0, (command, result.err)
        said += f"{result.err}\n{result.out}\n"
        if command.split()[1] in ("restore", "degrade"):
            assert Path(result.out.split()[0]).is_file(), command
    if name in RESTORING:
        shown = "\n".join(re.findall(r"<!-- output -->\n```text\n(.*?)```", page, flags=re.DOTALL))
        assert shape(shown) <= shape(said)


@pytest.mark.parametrize("name", PAGES)
def test_its_pictures_are_there(name: str) -> None:
    page = DOCS / name
    text = page.read_text(encoding="utf-8")
    drawn = [part["picture"].split(" of ")[0] for part in PART.finditer(text) if part["picture"]]
    assert drawn == re.findall(r"\]\(([\w/]+\.jpg)\)", text)
    assert all((page.parent / picture).is_file() for picture in drawn)


def test_the_quick_start_says_what_the_readme_shows(dmps: Dmps, photos: Path, tmp_path: Path) -> None:
    with Image.open(photos / "coffee.png") as photo:
        for name in ("photo.png", "photo.jpg"):
            photo.convert("RGB").save(tmp_path / name)
    for block in re.findall(r"```console\n(.*?)```", (DOCS.parent / "README.md").read_text("utf-8"), flags=re.DOTALL):
        for command, shown in re.findall(r"(?m)^\$ (dmps .*)\n((?:[^$\n].*\n)*)", block):
            result = dmps(*shortened(command))
            assert result.code == 0, (command, result.err)
            if " eval " not in command:
                assert shape(shown) <= shape(result.err + result.out), command
