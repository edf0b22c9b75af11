"""`dmps train` on two processes of torchrun against one process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dmps_cli import trainer
from dmps_cli.training_files import Files, read_state
from tests.conftest import rel
from tests.shell import Dmps, photo

OPTIONS = ("--steps", "8", "--size", "small", "--batch", "3", "--crop", "32")
"""Three small crops a step, or one large one: two processes have two and one of them, or one and none."""

TOLERANCE = 1e-3
"""Largest difference of a weight to that of one process, over the largest weight of its tensor, after eight steps."""

SCRIPT = """
import os, signal
from dmps_cli import trainer, training

trainer.has_fast_bfloat16 = lambda device: False  # rounding of float32 alone is compared
if {signalled} and os.environ["RANK"] == "1":
    step = trainer.Trainer.take_step

    def interrupted(self, batch):
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch)

    trainer.Trainer.take_step = interrupted
training.LARGEST_LOSS = {largest}

from dmps_cli.cli.main import main

main()
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(6):
        photo(folder / f"{k}.png", (72, 80), seed=k)
    return folder


def on_two(
    tmp_path: Path, *arguments: str, signalled: bool = False, largest: float = 20.0
) -> subprocess.CompletedProcess[str]:
    (tmp_path / "script.py").write_text(SCRIPT.format(signalled=signalled, largest=largest))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*launcher, "--monitor-interval", "0.1", "script.py", "train", "photos", *OPTIONS, *arguments],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def ours(done: subprocess.CompletedProcess[str]) -> Sequence[str]:
    """The lines of the command, without the launcher's own."""
    return [line for line in done.stderr.splitlines() if line.startswith("dmps: ")]


def test_two_processes_train_what_one_does(
    dmps: Dmps, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C that reaches one of them ends both after the same step; one process then goes on."""
    monkeypatch.setattr(trainer, "has_fast_bfloat16", lambda device: False)
    one = dmps("train", photos, *OPTIONS, "-o", "one.safetensors")
    assert one.code == 0, one.err
    stopped = on_two(tmp_path, "-o", "two.safetensors", signalled=True)
    assert stopped.returncode != 0
    said = ours(stopped)
    assert "shared by 2 processes" in said[0]
    assert [line for line in said if "saved at step" in line] == [
        "dmps: saved at step 4; --resume two.safetensors goes on"
    ]
    assert [line for line in said if "error" in line] == ["dmps: error: interrupted; finished files are kept"]
    files = Files(prior=tmp_path / "two.safetensors")
    assert read_state(files).facts["step"] == 4
    done = on_two(tmp_path, "--resume", "two.safetensors")
    assert (done.returncode, done.stdout) == (0, "two.safetensors\n"), done.stderr
    expected, rows = load_file("one.safetensors.state"), read_state(Files(prior=Path("one.safetensors"))).facts["rows"]
    found = load_file(files.state)
    for name, value in found.items():
        if name.startswith(("net.", "ema.")):
            assert rel(value, expected[name]) <= TOLERANCE, name
    assert not torch.equal(found["net.inp.weight"], trainer.initialised(read_state(files).config, 0).inp.weight)
    last = read_state(files).facts["rows"][-1]
    assert last["psnr_25"] == pytest.approx(rows[-1]["psnr_25"], abs=1e-3)
    assert read_state(files).facts["level_losses"] == pytest.approx(
        read_state(Files(prior=Path("one.safetensors"))).facts["level_losses"], rel=1e-3
    )


def test_what_both_meet_is_said_once(photos: Path, tmp_path: Path) -> None:
    """A loss that diverges, and a file in the way, which the first one alone looks for."""
    diverged = on_two(tmp_path, "-o", "two.safetensors", largest=1e-9)
    assert diverged.returncode != 0
    (line,) = (line for line in ours(diverged) if "error" in line)
    assert "the training has diverged" in line
    refused = on_two(tmp_path, "-o", "two.safetensors")
    assert [line for line in ours(refused) if "error" in line] == [
        "dmps: error: two.safetensors exists; --resume two.safetensors goes on with it, --overwrite begins anew over it"
    ]
    assert read_state(Files(prior=tmp_path / "two.safetensors")).facts["step"] == 0
