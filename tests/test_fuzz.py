"""What the fuzzer found, run again; that it would find a fault if there were one; its inputs follow from the seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.findings import FOLDER
from tests.fuzz.mutations import json_of, png_chunks, png_of, spoiled_bytes, spoiled_png, spoiled_tree
from tests.fuzz.trials import Outcome, judge
from tests.shell import photo

SOUND = Outcome(code=0, seconds=0.5, wall=0.5, mib=400.0)
TRACEBACK = b"""Traceback (most recent call last):
  File "/x/dmps_cli/cli/main.py", line 1, in main
  File "/x/dmps_cli/evaluation/folder.py", line 3, in read_rows
  File "/y/json/decoder.py", line 9, in decode
KeyError: 'image'
"""


def test_nothing_that_was_found_is_back() -> None:
    """In one process, with a guard of its own against each that hangs; the time-out here is for the guard."""
    assert len([*FOLDER.glob("*.json")]) > 0
    program = [sys.executable, "-m", "tests.fuzz", "--replay"]
    done = subprocess.run(
        program, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len([*FOLDER.glob('*.json')])} recorded findings, 0 of them faults" in done.stdout


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        ({"code": 0, "err": TRACEBACK}, "traceback: KeyError in dmps_cli/evaluation/folder.py:read_rows"),
        ({"code": 3}, "exit code 3"),
        ({"code": -11}, "exit code -11"),
        ({"code": 1}, "exit code 1 without a word"),
        ({"code": None}, "hangs"),
        ({"code": 0, "seconds": 2.6}, "slow"),
        ({"code": 1, "err": b"dmps: error: x\n", "idle": 2.6}, "waits"),
        ({"code": 0, "mib": 1001.0}, "memory"),
        ({"code": 1, "err": b"dmps: error: out of memory; free some\n"}, "memory"),
        ({"code": 0, "changed": ("outside/keep.png",)}, "changed: outside/keep.png"),
        ({"code": 1, "err": b"dmps: error: x\n", "missing": ("out/good.png",)}, "ended the batch"),
        ({"code": 0, "unknown": ("a",)}, "says a path that is none"),
        ({"code": 0, "err": b"/x/PIL/Image.py:3: DecompressionBombWarning: large\n"}, "a warning that is not of dmps"),
    ],
)
def test_each_fault_is_seen(outcome: dict[str, object], fault: str) -> None:
    assert judge(Outcome(**{**vars(SOUND), **outcome}), SOUND) == [fault]  # type: ignore[arg-type]


def test_what_is_right_is_no_fault() -> None:
    for code, err in ((0, b""), (1, b"dmps: error: x\n"), (2, b"Usage: dmps\n")):
        assert judge(Outcome(**{**vars(SOUND), "code": code, "err": err}), SOUND) == []  # type: ignore[arg-type]


def test_a_command_that_hangs_or_takes_memory_is_ended_and_measured(tmp_path: Path) -> None:
    program = (
        "import signal, sys, time; from pathlib import Path; from tests.fuzz.trials import forked\n"
        "print(forked(lambda: signal.pause() or 0, Path(sys.argv[1]), b'', 0.3).code)\n"
        "print(0.3 < forked(lambda: time.sleep(0.3) or 0, Path(sys.argv[1]), b'', 9.0).idle)\n"
        "some = forked(lambda: 0, Path(sys.argv[1]), b'', 9.0).mib\n"
        "print(forked(lambda: len(bytearray(10**8)) and 7, Path(sys.argv[1]), b'', 9.0).mib - some > 90)\n"
        "print(forked(lambda: 1 // 0, Path(sys.argv[1]), b'', 9.0).err.splitlines()[-1].decode())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "s")], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["None", "True", "True", "ZeroDivisionError: integer division or modulo by zero"]


def test_inputs_follow_from_the_seed(tmp_path: Path) -> None:
    data = photo(tmp_path / "p.png").read_bytes()
    assert png_of(png_chunks(data)) == data

    def spoiled(seed: int) -> tuple[bytes, bytes, bytes]:
        rng, tree = Random(seed), {"a": [1, {"b": "c"}], "d": 0.5}
        return spoiled_bytes(data, rng), spoiled_png(data, rng), json_of(spoiled_tree(tree, rng))

    made = [spoiled(seed) for seed in range(40)]
    assert made == [spoiled(seed) for seed in range(40)]
    assert len(set(made)) == 40
