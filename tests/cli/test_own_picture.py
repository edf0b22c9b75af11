"""The page for a person with a picture: what it says to type can be typed, in its order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from PIL import Image

from dmps_cli.files.images import photo_paths
from tests.shell import Dmps

PAGE = Path(__file__).parents[2] / "docs" / "own_picture.md"
SIDE = 64  # px of the photographs here; the scratches are drawn for 256


def commands() -> list[str]:
    """In order; a here-document is one command."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [command for block in blocks for command in re.findall(r"(?m)^.*<<'END'$[\s\S]*?^END$|^.+$", block)]


def test_the_commands_of_the_page_run(dmps: Dmps, tmp_path: Path) -> None:
    first, *rest = commands()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    subprocess.run(["bash", "-c", first], check=True, env=environment, cwd=tmp_path)
    assert {copy.name for copy in (tmp_path / "photos").glob("*.png")} == {path.name for path in photo_paths()}
    for copy in (tmp_path / "photos").glob("*.png"):
        with Image.open(copy) as photo:
            size = 256 if copy.stem == "astronaut" else SIDE
            photo.crop((0, 0, size, size)).save(copy)
    for command in rest:
        if command.startswith("dmps "):
            words = shlex.split(command)[1:]
            result = dmps(*words, *(["--nfe", "1"] if words[0] == "restore" else []))
            assert result.code == 0, (command, result.err)
            assert Path(result.out.strip()).is_file(), command
        else:
            subprocess.run(["bash", "-c", command], check=True, env=environment)


def test_its_pictures_are_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    linked = re.findall(r"\]\((own_picture/[a-z]+\.jpg)\)", text)
    assert len(linked) == 5
    assert all((PAGE.parent / name).is_file() for name in linked)
