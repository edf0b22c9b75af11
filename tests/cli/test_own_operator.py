"""The page of one's own operator: what it says to type can be typed, in its order; its Python runs after it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.shell import Dmps

PAGE = Path(__file__).parents[2] / "docs" / "own_operator.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_commands_of_the_page_run(dmps: Dmps, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    commands = [c for block in blocks("sh") for c in re.findall(r"(?m)^.*<<'END'$[\s\S]*?^END$|^.+$", block)]
    for command in commands:
        if not command.startswith("dmps "):
            subprocess.run(["bash", "-c", command], check=True, env={**os.environ, "PATH": path})
            continue
        words = shlex.split(command)[1:]
        result = dmps(*words, *(["--nfe", "1"] if words[0] == "restore" else []))
        assert result.code == 0, (command, result.err)
        assert Path(result.out.strip()).is_file(), command
        said = re.findall(r"(?m)^dmps: mine.py:dimmed.*$", result.err)
        shown = "\n".join(blocks("text"))
        assert all(re.sub(r"\d+e-\d+", "", line) in re.sub(r"\d+e-\d+", "", shown) for line in said)
    names: dict[str, object] = {}
    exec("\n".join(blocks("python")), names)
    assert names["m"].op.in_shape == (3, 64, 64)  # type: ignore[attr-defined]
