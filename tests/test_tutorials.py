"""The tutorials, followed with as little computing as can be: what they say to type runs, and says what they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.tutorials import DOCS, PAGES, PART, commands, shortened
from dmps_cli.files.images import photo_paths
from tests.shell import Dmps

SIDE = 64  # px of the photographs here
WHOLE = ("astronaut", "camera")  # scratches are drawn for 256 px; a grey prior needs as many to be measured
RESTORING = ("tutorials/first.md",)
"""Pages whose commands say the same whatever is computed, but for numbers."""


def shape(text: str) -> set[str]:
    """Its lines without numbers, rules and columns: what does not depend on how long was computed."""
    plain = (re.sub(r"[\d.]+(e-?\d+)?|─+|\W", "", line) for line in text.splitlines())
    return {line for line in plain if line}


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_the_page_run(name: str, dmps: Dmps, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    page, said = (DOCS / name).read_text(encoding="utf-8"), ""
    for number, command in enumerate(commands(page)):
        if command.startswith("dmps "):
            result = dmps(*shortened(command))
            assert result.code == 0, (command, result.err)
            said += f"{result.err}\n{result.out}\n"
            if command.split()[1] in ("restore", "degrade"):
                assert Path(result.out.split()[0]).is_file(), command
        else:
            subprocess.run(["bash", "-c", command], check=True, env={**os.environ, "PATH": path}, capture_output=True)
        if number == 0:
            copies = sorted((tmp_path / "photos").glob("*.png"))
            assert [copy.name for copy in copies] == sorted(photo.name for photo in photo_paths())
            for copy in copies:
                with Image.open(copy) as photo:
                    size = 256 if copy.stem in WHOLE else SIDE
                    photo.crop((0, 0, size, size)).save(copy)
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
