"""What the readers share: the sound pictures, and how a command makes sound inputs."""

from __future__ import annotations

from pathlib import Path

from tests.shell import photo

GOOD = "in/good.png"
DEGRADE = "--task sr2 --sigma 0.05 --overwrite"
FAST = "--nfe 1"


def dmps(line: str) -> None:
    """Runs a command that makes sound inputs."""
    from dmps_cli.cli.main import app

    try:
        app(line.split())
    except SystemExit as exc:
        if exc.code:
            raise RuntimeError(f"dmps {line}: exit code {exc.code}") from exc


def build_pictures() -> None:
    photo(Path(GOOD), (16, 16))
    photo(Path("in/bad.png"), (16, 16), seed=1)


def build_large_pictures() -> None:
    build_pictures()
    for k in range(2, 5):
        photo(Path(f"in/{k}.png"), (40, 40), seed=k)
