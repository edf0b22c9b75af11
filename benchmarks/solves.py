"""What solves by iteration cost beside the network: a blur by a kernel without structure, of which no mode is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

SIDE, SIZE = 21, 512  # px, of the kernel and of the picture
BUDGET = 50.0  # % of the network's time


def bench_rows() -> list[dict[str, Any]]:
    """Per form of DMPS, of one run each: seconds a step of the network and of all else, and the share of the latter."""
    with TemporaryDirectory() as folder:
        kernel = Path(folder, "kernel.npy")
        np.save(kernel, np.random.default_rng(0).random((SIDE, SIDE)))
        return [_row(kernel, score_at) for score_at in ("x0", "x_t")]


def _row(kernel: Path, score_at: str) -> dict[str, Any]:
    blur = ["--task", "blur", "--kernel", str(kernel), "--boundary", "valid", "--image-size", str(SIZE)]
    run = ["--score-at", score_at, "--nfe", "20", "--repeats", "1", "--no-memory", "--json"]
    command = [sys.executable, "-m", "dmps_cli", "time", *blur, *run]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    row = next(row for row in found["rows"] if row["method"] == "dmps")
    step = {name: row[name] / row["calls"] for name in ("network", "likelihood")}
    return {
        "blur": f"random {SIDE} x {SIDE}, valid, {SIZE} x {SIZE}",
        "score at": score_at,
        "network ms": 1e3 * step["network"],
        "likelihood ms": 1e3 * step["likelihood"],
        "share %": 100 * step["likelihood"] / step["network"],
        "budget %": BUDGET,
    }


if __name__ == "__main__":
    print(*bench_rows(), sep="\n")
