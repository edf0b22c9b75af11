"""`dmps train` on two processes, as torchrun starts them, against one process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dmps_cli.cli.main import app
from dmps_cli.nets.beginnings import initialised
from dmps_cli.training import run as training
from dmps_cli.training import trainer
from dmps_cli.training.photographs import TrainingBatch
from dmps_cli.training.state import Files, read_state
from tests.conftest import rel
from tests.shell import Dmps, Result, photo

OPTIONS = ("--steps", "8", "--size", "small", "--batch", "3", "--crop", "32")
"""Three small crops a step, or one large one: two processes have two and one of them, or one and none."""

TOLERANCE = 1e-3
"""Largest difference of a weight to that of one process, over the largest weight of its tensor, after eight steps."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(6):
        photo(folder / f"{k}.png", (72, 80), seed=k)
    return folder


# What the processes do, each with the interpreter's state of a fresh start


def in_float32() -> None:
    """Its rounding alone is to be compared."""
    trainer.has_fast_bfloat16 = lambda device: False  # type: ignore[attr-defined]


def interrupted_in_the_fourth_step() -> None:
    """Ctrl-C that reaches the second process alone."""
    in_float32()
    step = trainer.Trainer.take_step

    def interrupted(self: trainer.Trainer, batch: TrainingBatch) -> float:
        if self.step == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch)

    trainer.Trainer.take_step = interrupted  # type: ignore[method-assign]


def diverging() -> None:
    training.LARGEST_LOSS = 1e-9


def one_of_two(rank: int, port: int, folder: Path, arguments: tuple[str, ...], prepare: Callable[[], None]) -> None:
    """A process of the run; what it says goes to files."""
    os.chdir(folder)
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in told.items()} | {"TORCHELASTIC_RUN_ID": "test"}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # multiprocessing's own children ignore it
    torch.set_num_threads(1)
    with Path(f"{rank}.out").open("w") as sys.stdout, Path(f"{rank}.err").open("w") as sys.stderr:
        prepare()
        app(["train", "photos", *arguments])


def on_two(folder: Path, *arguments: str, prepare: Callable[[], None] = in_float32) -> list[Result]:
    """What two processes leave behind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")  # one that has imported this module forks them all
    context.set_forkserver_preload([__name__, "torch._dynamo"])  # which DistributedDataParallel imports
    processes = [
        context.Process(target=one_of_two, args=(rank, port, folder, arguments, prepare), daemon=True)
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    texts = [[(folder / f"{rank}.{kind}").read_text() for kind in ("out", "err")] for rank in range(2)]
    return [Result(process.exitcode or 0, *text) for process, text in zip(processes, texts, strict=True)]


def test_two_processes_train_what_one_does(
    dmps: Dmps, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted, both stop after the same step, and go on to where one process comes."""
    monkeypatch.setattr(trainer, "has_fast_bfloat16", lambda device: False)
    whole = dmps("train", photos, *OPTIONS, "-o", "one.safetensors")
    assert whole.code == 0, whole.err
    first, second = on_two(tmp_path, *OPTIONS, "-o", "two.safetensors", prepare=interrupted_in_the_fourth_step)
    assert (first.code, second.code, first.out, second.out, second.err) == (130, 130, "", "", "")
    assert "shared by 2 processes" in first.err
    assert first.err.endswith(
        "dmps: saved at step 4; --resume two.safetensors goes on\ndmps: error: interrupted; finished files are kept\n"
    )
    first, second = on_two(tmp_path, "--resume", "two.safetensors")
    assert (first.code, first.out, second.code, second.out, second.err) == (0, "two.safetensors\n", 0, "", ""), (
        first.err
    )
    one, two = (read_state(Files(prior=tmp_path / f"{name}.safetensors")) for name in ("one", "two"))
    expected = one.tensors()
    for name, value in two.tensors().items():
        if name.startswith(("net.", "ema.")):
            assert rel(value, expected[name]) <= TOLERANCE, name
    begun = initialised(one.config, 0).out.weight
    assert rel(begun, expected["net.out.weight"]) > 0.1
    assert two.facts["step"] == 8
    assert two.facts["level_losses"] == pytest.approx(one.facts["level_losses"], rel=1e-3)
    assert two.facts["rows"][-1]["psnr_25"] == pytest.approx(one.facts["rows"][-1]["psnr_25"], abs=1e-3)


def test_what_both_meet_is_said_once(photos: Path, tmp_path: Path) -> None:
    """A loss that diverges, and a file in the way, which the first one alone looks for."""
    first, second = on_two(tmp_path, *OPTIONS, "-o", "two.safetensors", prepare=diverging)
    assert (first.code, second.code, second.err) == (1, 1, "")
    assert first.err.count("error") == 1
    assert "the training has diverged" in first.err
    assert load_file(tmp_path / "two.safetensors.state")
    first, second = on_two(tmp_path, *OPTIONS, "-o", "two.safetensors")
    assert (first.code, second.code, second.err) == (1, 1, "")
    assert "dmps: error: two.safetensors exists" in first.err
