"""What the commands import: seconds of every call in a shell loop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.shell import photo

SLOW = ("torch._dynamo", "torch._inductor", "sympy", "torchvision", "lpips")  # seconds each, or half of one


def loaded(folder: Path, *commands: list[str]) -> list[str]:
    """The slow packages that are imported once the commands have run in one fresh process."""
    code = (
        "import sys\nfrom dmps_cli.cli.main import app\n"
        f"for command in {commands!r}:\n"
        "    try: app(command)\n"
        "    except SystemExit as exc: assert not exc.code, command\n"
        f"print('loaded', *[name for name in {SLOW!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()[-1].split()[1:]


def test_restore_and_degrade_import_what_they_need(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", (16, 16))
    few = ["--nfe", "1", "--quiet"]
    assert not loaded(
        tmp_path,
        ["degrade", "a.png", "--task", "denoise", "--quiet", "-o", "y.png"],
        ["restore", "y.png", "-o", "x.png", *few],
    )
