"""Records `--help` of every command, and the list of all options, which tests/cli/test_help.py compares.

python -m tests.cli.record_help
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "help"
OPTIONS = "options.txt"
SETTLED = {"COLUMNS": "100", "LINES": "40", "TERM": "dumb", "NO_COLOR": "1", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}
UNSET = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TERMINAL_WIDTH", "DMPS_WEIGHTS", "DMPS_DATASETS")

PROGRAM = """
import contextlib, io, json
from typer.main import get_command
from dmps_cli.cli.main import app

def commands(command, words):
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, [*words, name])

texts, options = {}, []
for words, command in commands(get_command(app), []):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        app([*words, "--help"], prog_name="dmps")
    name = " ".join(["dmps", *words])
    lines = [line.rstrip() for line in out.getvalue().strip().splitlines()]
    texts[name.replace(" ", "_") + ".txt"] = "\\n".join(lines) + "\\n"
    options += [f"{name} {word}" for p in command.params for word in (*p.opts, *p.secondary_opts) if word[0] == "-"]
texts["options.txt"] = "\\n".join(sorted(options)) + "\\n"
print(json.dumps(texts))
"""


def help_texts() -> dict[str, str]:
    """File name -> what it holds: the help of a command, 100 columns wide, without colour; every option, one a line."""
    settled = {name: value for name, value in os.environ.items() if name not in UNSET} | SETTLED
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=settled, capture_output=True, text=True, check=True)
    texts: dict[str, str] = json.loads(done.stdout)
    return texts


def main() -> None:
    """Writes the files anew."""
    FOLDER.mkdir(exist_ok=True)
    texts = help_texts()
    for path in FOLDER.iterdir():
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
