"""`dmps train`: the loss and the averages against their formulas, interrupted runs against whole ones, the files."""

from __future__ import annotations

import builtins
import csv
import hashlib
import io
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dmps_cli import ahead
from dmps_cli.ahead import Ahead
from dmps_cli.cli.console import Console
from dmps_cli.errors import InputError, NumericsError, OutputError, WeightsError
from dmps_cli.files.atomic import try_lock
from dmps_cli.files.images import GREY_WEIGHTS, to_grey
from dmps_cli.nets.beginnings import initialised
from dmps_cli.nets.natural import Natural, NaturalConfig
from dmps_cli.training import curves
from dmps_cli.training import run as training
from dmps_cli.training import state as training_files
from dmps_cli.training.budgets import Minutes, Steps
from dmps_cli.training.muon import Muon, MuonAdamW, orthogonalised
from dmps_cli.training.noise_levels import LevelLosses, NoiseLevels
from dmps_cli.training.objective import average_decay, edm_loss, learning_rate
from dmps_cli.training.photographs import (
    Collection,
    Photo,
    Shapes,
    TrainingBatch,
    draw_batch,
    find_photos,
    held_out,
    is_usable,
    random_crop,
)
from dmps_cli.training.run import TrainingRun
from dmps_cli.training.start import reporter
from dmps_cli.training.state import Files, Saved, check_room, read_state
from dmps_cli.training.trainer import Recipe, Trainer, validation_pictures
from dmps_cli.weights import reading as checkpoints
from dmps_cli.weights.reading import read_safetensors
from tests.conftest import randn, rel
from tests.shell import Dmps, break_import, photo, pixels

TINY = NaturalConfig(widths=(8, 8), num_blocks=1, emb_width=16, num_frequencies=4)
CPU = torch.device("cpu")
RECIPE = Recipe(minutes=0.4, batch=2, crop=32, seed=3)  # 24 seconds, of which the step clock makes 24 steps


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of eight photographs, some in a subfolder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for k in range(8):
        photo(folder / ("more" if k % 2 else "") / f"{k}.png", (72, 56), seed=k)
    return folder


def tiny_run(photos: Path, out: Path, *, last: int | None = None, saved: Saved | None = None) -> TrainingRun:
    """A run of a tiny network on the step clock; interrupted before step `last`."""
    recipe = RECIPE if saved is None else saved.recipe
    trainer = Trainer(initialised(TINY, recipe.seed), TINY, recipe, CPU)
    if saved is not None:
        trainer.restore(saved.tensors(), saved.facts)
    train, held = held_out(find_photos([photos]))
    return TrainingRun(
        trainer=trainer,
        collection=Collection(train, channels=3, least_side=32, seed=recipe.seed),
        pictures=validation_pictures(held, 3, 32).pictures,
        files=Files(prior=out),
        facts={},
        clock=float,
        stop=lambda: trainer.step == last,
    )


# The mathematics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma_data", [0.5, 0.8])
def test_the_loss_is_the_weighted_error_of_the_denoiser(sigma_data: float) -> None:
    """lambda |D - x|^2 with D by its own code and lambda of EDM's Table 1, one image at a time, in float64."""
    net = initialised(NaturalConfig(widths=(8, 8), num_blocks=1), 0).double()
    for k, parameter in enumerate(net.parameters()):
        parameter.copy_(0.2 * randn(*parameter.shape, seed=k))
    x, eps = randn(3, 3, 10, 14).clamp(-1, 1), randn(3, 3, 10, 14, seed=1)
    levels = [0.005, 0.7, 150.0]
    denoiser = Natural(net, sigma_data=sigma_data)
    expected = [
        (s**2 + sigma_data**2) / (s * sigma_data) ** 2 * (denoiser.denoise(z + s * n, s) - z).square().mean()
        for z, n, s in zip(x.split(1), eps.split(1), levels, strict=True)
    ]
    loss = edm_loss(net, x, torch.tensor(levels, dtype=torch.float64), eps, sigma_data)
    assert rel(loss, torch.stack(expected)) <= 1e-9


def test_the_loss_of_a_network_that_knows_nothing_is_one() -> None:
    """F = 0: E[target^2] = (s^2 var(x) + sigma_data^4) / (sigma_data^2 v) = 1 where x has the variance assumed."""
    x, eps = 0.5 * randn(4, 3, 64, 64), randn(4, 3, 64, 64, seed=1)
    for s in (0.01, 1.0, 100.0):
        loss = edm_loss(lambda u, c: torch.zeros_like(u), x, torch.full((4,), s, dtype=torch.float64), eps)
        assert float(loss.mean()) == pytest.approx(1.0, rel=0.03)


def test_gradients_flow_to_every_parameter() -> None:
    net = initialised(TINY, 0).double()
    for k, parameter in enumerate(net.parameters()):
        parameter.add_(0.1 * randn(*parameter.shape, seed=k))
    x, eps = randn(2, 3, 8, 8), randn(2, 3, 8, 8, seed=1)
    s = torch.tensor([0.1, 2.0], dtype=torch.float64)
    with torch.enable_grad():
        loss = edm_loss(net, x, s, eps).mean()
        names, parameters = zip(*net.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, parameters)
    for name, parameter, gradient in zip(names, parameters, gradients, strict=True):
        direction = randn(*parameter.shape, seed=7)
        before, values = parameter.clone(), []
        for step in (1e-5, -1e-5):
            parameter.copy_(before + step * direction)
            values.append(float(edm_loss(net, x, s, eps).mean()))
        parameter.copy_(before)
        slope = (values[0] - values[1]) / 2e-5
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-4, abs=1e-8), name


def test_the_average_has_its_closed_form(photos: Path, tmp_path: Path) -> None:
    """ema_n = sum over k of (1 - d_k) prod over j > k of d_j theta_k, and what is left of the beginning."""
    run = tiny_run(photos, tmp_path / "out.safetensors")
    trainer, shapes = run.trainer, RECIPE.shapes
    history, name = [trainer.net.inp.weight.double().clone()], "inp.weight"
    for step in range(6):
        trainer.take_step(draw_batch(run.collection, shapes, trainer.levels, 3, step))
        history.append(trainer.net.inp.weight.double().clone())
    decays = [(1 + k) / (10 + k) for k in range(6)]
    weights = [math.prod(decays)]
    weights += [(1 - decays[k]) * math.prod(decays[k + 1 :]) for k in range(6)]
    assert sum(weights) == pytest.approx(1.0)
    expected = sum(weight * value for weight, value in zip(weights, history, strict=True))
    assert rel(trainer.ema.state_dict()[name], expected) <= 1e-6
    assert average_decay(10**6) == 0.9995


def test_the_schedule() -> None:
    """Up over 100 steps, down along a cosine of the share of time."""
    assert [learning_rate(1.0, share, 10**4) for share in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.5, 0.0])
    assert learning_rate(8e-4, 1 / 3, 10**4) == pytest.approx(6e-4)
    assert learning_rate(1.0, 0.0, 0) == pytest.approx(0.01)
    assert learning_rate(1.0, 1.5, 10**4) == 0.0


def test_noise_levels_are_uniform_in_their_logarithm() -> None:
    levels = NoiseLevels()
    s = levels.draw(np.random.default_rng(0), 200_000)
    spans = {(10.0, 200.0): levels.share_high, (0.05, 0.8): levels.focus}
    spans[(0.005, 10.0)] = 1.0 - sum(spans.values())
    grid = np.exp(np.linspace(math.log(0.005), math.log(200.0), 400))
    expected = sum(
        share * np.clip(np.log(grid / low) / math.log(high / low), 0.0, 1.0) for (low, high), share in spans.items()
    )
    found = np.searchsorted(np.sort(s), grid) / len(s)
    assert abs(found - expected).max() <= 2.0 / math.sqrt(len(s))  # Kolmogorov


def test_losses_count_by_the_inverse_of_their_mean_at_their_level() -> None:
    """Means of losses known at three levels far apart, each met as often as it takes; a level between keeps its 1."""
    losses, truth = LevelLosses(NoiseLevels()), {0.01: 0.5, 0.3: 0.08, 150.0: 2.0}
    rng = np.random.default_rng(0)
    for _ in range(3000):
        s = rng.permutation(list(truth))
        drawn = [truth[level] * rng.uniform(0.5, 1.5) for level in s]
        losses.update(torch.from_numpy(s), torch.tensor(drawn))
    weights = losses.weights(torch.tensor([*truth, 3.0]))
    assert weights.tolist() == pytest.approx([2.0, 12.5, 0.5, 1.0], rel=0.15)
    again = LevelLosses(NoiseLevels(), json.loads(json.dumps(losses.means)))
    assert torch.equal(again.weights(torch.tensor([*truth])), weights[:3])


def test_a_step_weighs_each_image_by_its_level() -> None:
    """The gradient of one step, against that of the images' own losses summed with the weights."""
    trainer = Trainer(initialised(TINY, 0), TINY, RECIPE, CPU)
    trainer.losses.means = [0.25 + 0.1 * k for k in range(LevelLosses.NUM_BINS)]
    x = (40.0 + 160.0 * torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))).to(torch.uint8)
    batch = TrainingBatch(x, torch.tensor([0.01, 0.5, 90.0]), torch.randn(3, 3, 16, 16))
    weights = trainer.losses.weights(batch.s)
    seen: list[torch.Tensor] = []
    trainer.optimizer.step = lambda lr: seen.append(trainer.net.out.bias.grad.clone())  # type: ignore[method-assign]
    with torch.enable_grad(), trainer.autocast():
        losses = [
            edm_loss(trainer.net, one.float() / 127.5 - 1.0, s, eps).sum()
            for one, s, eps in zip(x.split(1), batch.s.split(1), batch.eps.split(1), strict=True)
        ]
    parts = [torch.autograd.grad(loss, trainer.net.out.bias)[0] for loss in losses]
    mean = trainer.take_step(batch)
    expected = sum(float(w) * part for w, part in zip(weights, parts, strict=True)) / 3
    assert rel(seen[0] / seen[0].norm(), expected / expected.norm()) <= 1e-2  # bfloat16; clipped in length
    assert mean == pytest.approx(float(sum(losses)) / 3, rel=1e-2)


def test_crops_are_parts_of_the_photograph_in_all_eight_positions() -> None:
    picture = np.arange(40 * 50 * 3, dtype=np.int32).reshape(40, 50, 3)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        crop = random_crop(picture, 32, rng)
        values = crop[:, :, 0] // 3
        row, col = divmod(int(values.min()), 50)
        assert sorted(values.ravel()) == sorted((picture[row : row + 32, col : col + 32, 0] // 3).ravel())
        seen.add((int(values[0, 1] - values[0, 0]), int(values[1, 0] - values[0, 0])))
    assert seen == {(a, b) for a in (1, -1, 50, -50) for b in (1, -1, 50, -50) if abs(a) != abs(b)}


def test_a_step_follows_the_schedule_and_the_clipping(photos: Path, tmp_path: Path) -> None:
    """What the optimizer is given: the schedule's rate, a gradient of norm 1 at most; the means of the levels move."""
    run = tiny_run(photos, tmp_path / "out.safetensors")
    trainer, step = run.trainer, run.trainer.optimizer.step
    seen: list[tuple[float, float, float]] = []

    def watched(lr: float) -> None:
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in trainer.net.parameters() if p.grad is not None))
        seen.append((lr, trainer.seconds, norm))
        step(lr)

    trainer.optimizer.step = watched  # type: ignore[method-assign]
    trainer.net.out.bias.fill_(50.0)  # far off: a large gradient
    with pytest.raises(NumericsError, match="diverged"):
        run.train()
    trainer.net.out.bias.zero_()
    run.losses.clear()
    run.train()
    assert len(seen) >= 24
    assert max(norm for _, _, norm in seen) == pytest.approx(1.0, abs=1e-3)
    for place, (lr, seconds, _) in enumerate(seen):
        expected = min(1.0, (place + 1) / 100) * RECIPE.lr * 0.5 * (1.0 + math.cos(math.pi * seconds / 24.0))
        assert lr == pytest.approx(expected)
    assert len({*trainer.losses.means} - {1.0}) >= 5


def test_the_prior_is_the_average(photos: Path, tmp_path: Path) -> None:
    run = tiny_run(photos, tmp_path / "out.safetensors")
    run.train()
    state, prior = load_file(run.files.state), load_file(run.files.prior)
    for name, value in prior.items():
        if name == "fr":
            continue
        assert torch.equal(value, state[f"ema.{name}"].to(value.dtype)), name
        is_half = value.ndim > 1 and name.partition(".")[0] not in ("inp", "out", "emb")
        assert value.dtype == (torch.float16 if is_half else torch.float32), name
    assert not torch.equal(state["ema.inp.weight"], state["net.inp.weight"])


def test_a_few_dozen_steps_lower_the_loss() -> None:
    """On one fixed batch of smooth pictures at a moderate noise level."""
    trainer = Trainer(initialised(TINY, 0), TINY, Recipe(lr=5e-3), CPU)
    x = torch.linspace(0, 255, 32).expand(4, 3, 32, 32).to(torch.uint8)
    eps = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    losses = [trainer.take_step(TrainingBatch(x, torch.full((4,), 0.3), eps)) for _ in range(100)]
    assert losses[-1] <= 0.6 * losses[0]
    assert trainer.bad_steps == 0


def test_a_step_without_a_finite_gradient_changes_nothing_and_is_counted() -> None:
    trainer = Trainer(initialised(TINY, 0), TINY, RECIPE, CPU)
    good = TrainingBatch(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.ones(1), torch.ones(1, 3, 8, 8))
    trainer.take_step(good)
    before = {name: value.clone() for name, value in trainer.tensors().items()}
    trainer.take_step(good._replace(eps=torch.full((1, 3, 8, 8), math.inf)))
    assert (trainer.step, trainer.bad_steps) == (2, 1)
    assert all(torch.equal(value, before[name]) for name, value in trainer.tensors().items())
    trainer.take_step(good)
    assert not torch.equal(trainer.net.out.bias, before["net.out.bias"])


def test_endless_bad_steps_end_the_run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(photos, tmp_path / "out.safetensors")
    monkeypatch.setattr(training, "MOST_BAD_STEPS", 5)
    for parameter in run.trainer.net.parameters():  # the loss is finite, no gradient is
        parameter.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NumericsError, match=r"5 steps in a row had no finite gradient.*smaller --lr"):
        run.train()
    assert (run.trainer.step, run.trainer.bad_steps) == (5, 5)
    assert torch.equal(load_file(run.files.state)["net.inp.weight"], initialised(TINY, RECIPE.seed).inp.weight)


def test_a_training_that_diverges_keeps_the_last_checkpoint(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, step = tiny_run(photos, tmp_path / "out.safetensors"), Trainer.take_step
    monkeypatch.setattr(Trainer, "take_step", lambda self, batch: step(self, batch) * (1e6 if self.step > 9 else 1.0))
    with pytest.raises(NumericsError, match="diverged"):
        run.train()
    kept = read_state(run.files).facts
    assert 0 < kept["step"] <= 9
    assert read_safetensors(run.files.prior)[1]["steps"] == str(kept["step"])


# The optimizer -------------------------------------------------------------------------------------------------------


def test_muon_orthogonalises_the_averaged_gradient() -> None:
    """Two steps against the definition by an SVD: kernel -= lr (0.01 kernel + 0.2 sqrt(max(m, n)) about U V^T).

    U S V^T is Nesterov's average of the gradients as a matrix, one output channel a row (of a transposed
    convolution, one input channel); Newton-Schulz leaves the singular values within 0.68 .. 1.14.
    """
    net = initialised(TINY, 0).to(memory_format=torch.channels_last).requires_grad_(True)
    optimizer = MuonAdamW(net, fused=True)
    named = dict(net.named_parameters())
    kernels = [name for name, p in named.items() if p.ndim == 4 and name not in ("inp.weight", "out.weight")]
    assert "down.0.weight" in kernels
    assert "up.0.weight" in kernels
    average = {name: torch.zeros_like(named[name]).flatten(1) for name in kernels}
    for step, lr in enumerate((1e-3, 4e-4)):
        before = {name: p.detach().clone() for name, p in named.items()}
        for k, parameter in enumerate(named.values()):
            parameter.grad = randn(*parameter.shape, seed=100 * step + k).float()
        optimizer.step(lr)
        for name in kernels:
            gradient = named[name].grad
            assert gradient is not None
            average[name] = 0.95 * average[name] + 0.05 * gradient.flatten(1)
            left, _, right = torch.linalg.svd(0.05 * gradient.flatten(1) + 0.95 * average[name], full_matrices=False)
            moved = (before[name] * (1.0 - 0.01 * lr) - named[name].detach()).flatten(1)
            values = left.T @ moved @ right.T / (lr * 0.2 * math.sqrt(max(moved.shape)))
            assert (values - values.diag().diag()).abs().max() <= 1e-4, name
            assert values.diag().min() >= 0.6, name
            assert values.diag().max() <= 1.25, name


@pytest.mark.parametrize("shape", [(24, 200), (96, 24), (16, 16)])
def test_iterating_the_smaller_side_is_newton_schulz(shape: tuple[int, int]) -> None:
    """Against X <- a X + b (X X^T) X + c (X X^T)^2 X in float64, some singular values tiny or 0."""
    left, s, right = torch.linalg.svd(randn(*shape, seed=1), full_matrices=False)
    s[-6:] *= torch.tensor([1e-2, 1e-3, 1e-4, 1e-6, 0.0, 0.0])
    matrix = left @ s.diag() @ right
    x, (a, b, c) = matrix / matrix.norm(), (3.4445, -4.775, 2.0315)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    assert (orthogonalised(matrix[None].float())[0] - x).abs().max() <= 1e-4
    assert torch.equal(orthogonalised(torch.zeros(1, *shape)), torch.zeros(1, *shape))


def test_steps_are_those_of_torchs_muon() -> None:
    """Ten steps of random gradients on kernels as matrices, within the bfloat16 of torch.optim.Muon."""
    matrices = {"tall": randn(40, 12, seed=2).float(), "wide": randn(12, 40, seed=3).float()}
    theirs = {name: torch.nn.Parameter(matrix.clone()) for name, matrix in matrices.items()}
    begun = {name: matrix.clone() for name, matrix in matrices.items()}
    muon = Muon(matrices)
    known = torch.optim.Muon(theirs.values(), lr=1e-2, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    for step in range(10):
        gradients = {name: randn(*m.shape, seed=50 + step + len(m)).float() for name, m in matrices.items()}
        muon.step(gradients, 1e-2)
        for name, parameter in theirs.items():
            parameter.grad = gradients[name]
        known.step()
    for name, matrix in matrices.items():
        assert rel(matrix - begun[name], theirs[name].detach() - begun[name]) <= 0.02, name


def test_the_rest_is_adamw() -> None:
    """The first step of AdamW is lr (sign of the gradient + 0.01 parameter)."""
    net = initialised(TINY, 0).to(memory_format=torch.channels_last).requires_grad_(True)
    optimizer = MuonAdamW(net, fused=True)
    for name in ("inp.weight", "emb.0.bias", "enc.0.0.aff.weight"):
        parameter = net.get_parameter(name)
        before = parameter.detach().clone()
        parameter.grad = torch.empty_like(parameter).copy_(randn(*parameter.shape, seed=5))
        optimizer.step(1e-3)
        expected = before * (1.0 - 1e-5) - 1e-3 * parameter.grad.sign()
        assert rel(parameter.detach() - before, expected - before) <= 1e-3
        parameter.grad = None


# Interruptions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [1, 11])
def test_interrupted_and_resumed_is_uninterrupted(photos: Path, tmp_path: Path, last: int) -> None:
    whole = tiny_run(photos, tmp_path / "whole.safetensors")
    whole.train()
    files = Files(prior=tmp_path / "parts.safetensors")
    with pytest.raises(KeyboardInterrupt):
        tiny_run(photos, files.prior, last=last).train()
    assert read_state(files).facts["step"] == last
    resumed = tiny_run(photos, files.prior, saved=read_state(files))
    resumed.train()
    assert whole.trainer.step == resumed.trainer.step == 24
    expected = load_file(whole.files.state)
    for name, value in load_file(files.state).items():
        assert torch.equal(value, expected[name]), name
    assert files.prior.read_bytes() == whole.files.prior.read_bytes()
    assert not torch.equal(expected["net.inp.weight"], initialised(TINY, RECIPE.seed).inp.weight)


def test_killed_at_any_step_it_ends_in_the_same_bits(photos: Path, tmp_path: Path) -> None:
    """What lies on the disk when a step begins is all that kill -9 leaves; from there the same files are made."""
    whole, left = tiny_run(photos, tmp_path / "whole.safetensors"), tmp_path / "left"
    take_step = whole.trainer.take_step

    def watched(batch: TrainingBatch) -> float:
        step = left / str(whole.trainer.step)
        step.mkdir(parents=True)
        for path in tmp_path.glob("whole.safetensors*"):
            shutil.copy(path, step / path.name.replace("whole", "parts"))
        return take_step(batch)

    whole.trainer.take_step = watched  # type: ignore[method-assign]
    whole.train()
    begun = []
    for step in range(24):
        files = Files(prior=left / str(step) / "parts.safetensors")
        resumed = tiny_run(photos, files.prior, saved=read_state(files))
        begun.append(resumed.trainer.step)
        if begun[-1] in begun[:-1]:
            continue  # of one checkpoint one run is enough
        resumed.train()
        assert files.prior.read_bytes() == whole.files.prior.read_bytes()
        expected = load_file(whole.files.state)
        assert all(torch.equal(value, expected[name]) for name, value in load_file(files.state).items())
    assert begun == sorted(begun)
    assert len(set(begun)) >= 6


KILLED = """
import math, os, signal, sys
from dmps_cli.cli.main import main
from dmps_cli.training import run

run.SAVE_SHARE = math.inf  # a checkpoint after each step, however long it takes
take_step = run.Trainer.take_step

def killed(self, batch):
    if self.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return take_step(self, batch)

run.Trainer.take_step = killed
main()
"""


@pytest.mark.posix
def test_a_killed_command_goes_on_from_its_checkpoint(dmps: Dmps, photos: Path, tmp_path: Path) -> None:
    """kill -9 of the command itself, then the same command again: the file of a run that nothing happened to."""
    command = ("train", photos, *QUICK, "-o")
    assert dmps(*command, "whole.safetensors").code == 0
    arguments = [*map(str, command), "out.safetensors", "--resume", "out.safetensors"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # as this process has it: bits are promised for equal numbers
        check=False,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    killed = read_state(Files(prior=Path("out.safetensors"))).facts
    assert killed["step"] == 3
    result = dmps(*arguments, "--json")
    assert "going on from step 3" in result.err
    assert json.loads(result.out)["steps"] == 6
    assert Path("out.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()
    again = dmps(*arguments)
    assert "nothing to do" in again.err
    assert again.out == "out.safetensors\n"


def test_a_run_killed_in_its_first_checkpoint_begins_anew_or_goes_on(
    dmps: Dmps, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each of the first checkpoint's files the same command serves the next call."""
    command = ("train", photos, "-o", "p.safetensors", "--resume", "p.safetensors", *QUICK)
    for name in ("write_state", "write_prior", "write_log"):
        with monkeypatch.context() as patch:
            patch.setattr(training, name, killed)
            assert dmps(*command).code == 130
        assert not (Path("p.safetensors").exists() and not Path("p.safetensors.state").exists())
        done = dmps(*command)
        assert done.code == 0, done.err
        for path in Path().glob("p.safetensors*"):
            path.unlink()


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_state_that_was_gone_on_from_is_let_go(photos: Path, tmp_path: Path) -> None:
    """A file that stays mapped keeps its room on the disk after the next checkpoint has replaced it."""
    run = tiny_run(photos, tmp_path / "out.safetensors")
    run.trainer.take_step(draw_batch(run.collection, RECIPE.shapes, NoiseLevels(), 0, 0))
    run.save()
    saved = read_state(run.files)
    trainer = training.Start(recipe=RECIPE, config=TINY, saved=saved).trainer(CPU)
    assert torch.equal(trainer.net.inp.weight, run.trainer.net.inp.weight)
    maps = Path("/proc/self/maps")  # Linux
    assert not maps.exists() or str(run.files.state) not in maps.read_text()


@pytest.mark.posix
def test_ctrl_c_leaves_a_usable_prior_and_130(
    dmps: Dmps, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.take_step

    def interrupted(self: Trainer, batch: TrainingBatch) -> float:
        if self.step == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch)

    monkeypatch.setattr(Trainer, "take_step", interrupted)
    result = dmps("train", photos, "-o", "p.safetensors", *QUICK)
    assert result.code == 130
    assert "saved at step 1; --resume p.safetensors goes on" in result.err
    assert "interrupted" in result.err
    assert read_state(Files(prior=Path("p.safetensors"))).facts["step"] == 1  # the step in hand was finished
    assert Path("p.safetensors.svg").exists()
    photo(tmp_path / "x.png", (40, 40))
    assert dmps("restore", "x.png", "--task", "denoise", "--nfe", "2", "--model", "p.safetensors").code == 0


@pytest.mark.posix
def test_by_steps_the_same_command_gives_the_same_file(
    dmps: Dmps, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also interrupted twice, on a clock of its own: what it holds and what it says."""
    command = ("train", photos, *QUICK, "--steps", "10", "-o")
    assert dmps(*command, "whole.safetensors").code == 0
    step = Trainer.take_step

    def interrupted(self: Trainer, batch: TrainingBatch) -> float:
        if self.step in (2, 7):
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch)

    monkeypatch.setattr(Trainer, "take_step", interrupted)
    calls = [dmps(*command, "parts.safetensors", "--resume", "parts.safetensors") for _ in range(3)]
    assert [call.code for call in calls] == [130, 130, 0], calls[-1].err
    assert "going on from step 8, " in calls[-1].err
    assert Path("parts.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()
    assert read_state(Files(prior=Path("whole.safetensors"))).facts["rows"][-1]["lr"] == 0.0


# Photographs ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_used_is_skipped_and_counted(photos: Path) -> None:
    photo(photos / "small.png", (72, 24))
    (photos / "broken.png").write_bytes((photos / "0.png").read_bytes()[:200])
    (photos / "empty.jpg").write_bytes(b"")
    (photos / ".hidden.png").write_bytes(b"")
    (photos / "notes.txt").write_text("no picture")
    Image.new("LA", (40, 40), (90, 255)).save(photos / "grey.png")
    found = find_photos([photos, photos / "more"])
    assert len(found) == 8 + 4
    collection = Collection(found, channels=3, least_side=32, seed=0)
    assert collection.skipped == (1, 2)
    assert len(collection.photos) == 9
    assert all(value.shape[2] == 3 for value in collection.cache.values())
    with pytest.raises(InputError, match="of 12 files, 11 are smaller than the crop of 64 px and 1 damaged"):
        Collection(found, channels=3, least_side=64, seed=0)


def test_what_does_not_fit_into_memory_moves_through_it(photos: Path) -> None:
    """Every photograph has its turn, few are held, a damaged one is passed over, and nothing depends on the past."""
    (photos / "broken.png").write_bytes(b"no picture")
    room = 3 * 3 * 72 * 56
    found, draws = find_photos([photos]), np.random.default_rng(0).random(1000)

    def make() -> Collection:
        return Collection(found, channels=3, least_side=32, seed=0, cache_bytes=room)

    collection = make()
    assert (collection.is_whole, collection.window) == (False, 3)
    seen = []
    for crop, u in enumerate(draws):
        seen.append(collection.pixels(crop, u)[0, :4].tobytes())
        assert len(collection.cache) <= 4
    assert len(set(seen)) == 8
    assert collection.skipped.damaged == 1
    late = make()
    assert [late.pixels(crop, draws[crop])[0, :4].tobytes() for crop in range(700, 800)] == seen[700:800]


@pytest.mark.parametrize(("size", "crops"), [((72, 56), 48), ((1000, 800), 1000 * 800 // 10 // 32**2)])
def test_large_photographs_stay_longer(tmp_path: Path, size: tuple[int, int], crops: int) -> None:
    """So decoding them does not take longer than training on them."""
    for k in range(4):
        photo(tmp_path / f"{k}.png", size, seed=k)
    collection = Collection(
        find_photos([tmp_path]), channels=3, least_side=32, seed=0, cache_bytes=3 * size[0] * size[1]
    )
    held = [collection.pixels(crop, 0.0).tobytes() for crop in range(3 * crops)]
    changes = [crop for crop in range(1, len(held)) if held[crop] != held[crop - 1]]
    assert changes == [crops, 2 * crops]


@pytest.mark.posix
def test_linked_folders_are_entered_once(photos: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    (outer / "link").symlink_to(photos, target_is_directory=True)
    (outer / "again").symlink_to(photos, target_is_directory=True)
    (photos / "circle").symlink_to(outer, target_is_directory=True)
    assert len(find_photos([outer])) == len(find_photos([photos])) == 8


def test_a_tenth_is_held_out_and_stays_so() -> None:
    listed = [Photo(path=Path(f"{k}.png"), name=f"{k}.png") for k in range(2000)]
    train, held = held_out(listed)
    assert len(train) + len(held) == 2000
    assert len(held) == pytest.approx(200, abs=45)
    assert set(held_out(listed[:1000])[1]) <= set(held)
    assert [len(part) for part in held_out(listed[:2])] == [1, 1]
    assert held_out(listed[:1]) == (listed[:1], [])


@pytest.mark.parametrize(
    ("num_good", "num_damaged", "sides"), [(1, 1, (2, 0)), (2, 1, (2, 1)), (2, 5, (6, 1)), (5, 0, (4, 1))]
)
def test_what_is_held_out_can_be_read(tmp_path: Path, num_good: int, num_damaged: int, sides: tuple[int, int]) -> None:
    """A usable photograph on either side, whatever the hashes of the names say; two are needed."""
    for k in range(num_good):
        photo(tmp_path / f"good{k}.png", (40, 40), seed=k)
    for k in range(num_damaged):
        (tmp_path / f"bad{k}.png").write_bytes((tmp_path / "good0.png").read_bytes()[:300])
    train, held = held_out(find_photos([tmp_path]), lambda photo: is_usable(photo, 3, 32))
    assert (len(train), len(held)) == sides
    assert Collection(train, channels=3, least_side=32, seed=0).num_usable == num_good - len(held)
    assert validation_pictures(held, 3, 32).photos == sorted(held, key=lambda photo: photo.key)
    everything = validation_pictures(find_photos([tmp_path]), 3, 32)
    assert (len(everything.pictures), everything.small, len(everything.damaged)) == (num_good, 0, num_damaged)
    none = validation_pictures(held, 3, 48)
    assert (none.pictures, none.photos, none.small) == ([], [], len(held))


def test_batches_are_fixed_by_seed_and_step(photos: Path) -> None:
    shapes, levels = Shapes.around(3, 32), NoiseLevels()
    collection = Collection(find_photos([photos]), channels=3, least_side=32, seed=0)
    drawn = [draw_batch(collection, shapes, levels, 0, step).x.shape for step in range(600)]
    assert {tuple(shape) for step, shape in enumerate(drawn) if step % 4 < 3} == {(3, 3, 32, 32)}
    assert {tuple(shape) for shape in drawn[3::4]} == {(1, 3, side, side) for side in range(49, 65)}
    one, same, other = (draw_batch(collection, shapes, levels, seed, 5) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one[:3], same[:3], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))


def test_of_several_processes_each_draws_its_part_of_the_same_batch(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, levels = Shapes.around(5, 32), NoiseLevels()
    collection = Collection(find_photos([photos]), channels=3, least_side=32, seed=0)
    for step in (2, 3):  # five small crops, one large one
        whole, parts = draw_batch(collection, shapes, levels, 0, step), []
        for rank in range(3):
            with monkeypatch.context() as patch:
                for name, value in {"RANK": str(rank), "WORLD_SIZE": "3", "TORCHELASTIC_RUN_ID": "x"}.items():
                    patch.setenv(name, value)
                parts.append(draw_batch(collection, shapes, levels, 0, step))
        for k in range(len(whole.x)):
            part, place = parts[k % 3], k // 3
            assert all(torch.equal(a[k], b[place]) for a, b in zip(whole[:3], part[:3], strict=True))
        assert {part.whole for part in parts} == {len(whole.x)}


def test_waiting_is_measured_and_errors_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of the test's own: a batch that is begun when it is asked for, in a second; and a slow network."""
    seconds, asked = [0.0], threading.Semaphore(0)

    def clock() -> float:
        asked.release()  # `take` looks at the clock before it waits, and after
        return seconds[0]

    def slow(step: int) -> int:
        if step == 9:
            raise InputError("gone")
        asked.acquire()
        asked.acquire(blocking=step > 5)
        seconds[0] += 1.0
        return step

    monkeypatch.setattr(ahead, "time", SimpleNamespace(perf_counter=clock))
    with Ahead(slow, 5, count=5) as loader:
        assert [loader.take() for _ in range(4)] == [5, 6, 7, 8]
        assert loader.wait_seconds == 4.0
        with pytest.raises(InputError, match="gone"):
            loader.take()
    with Ahead(lambda step: step, 0, count=3) as loader:
        loader.thread.join()  # all of them are made while a slow network computes
        assert [loader.take() for _ in range(3)] == [0, 1, 2]
        assert loader.wait_seconds == 0.0


# The command ---------------------------------------------------------------------------------------------------------

SHORT = ("--steps", "1")
QUICK = ("--steps", "6", "--size", "small", "--batch", "1", "--crop", "32")


def test_the_files_say_what_they_are(dmps: Dmps, photos: Path) -> None:
    result = dmps("train", photos, "-o", "p.safetensors", *QUICK, "--licence", "mine", "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    with safe_open("p.safetensors", "pt") as file:
        facts = file.metadata()
        halves = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    assert facts["architecture"] == "natural"
    assert (facts["widths"], facts["channels"], facts["licence"]) == ("32,48,64,96", "3", "mine")
    assert int(facts["steps"]) == report["steps"] > 0
    counts = ("photographs", "skipped_small", "skipped_damaged", "validation_since")
    assert [facts[name] for name in counts] == ["7", "0", "0", "0"]
    assert [report["photographs"][name] for name in counts] == [7, 0, 0, 0]
    assert json.loads(facts["versions"])["torch"] == torch.__version__.partition("+")[0]
    assert halves["mid.0.c1.weight"] == torch.float16
    exact = ("mid.0.c1.bias", "fr", "inp.weight", "out.weight", "emb.0.weight")
    assert {halves[name] for name in exact} == {torch.float32}
    with Path("p.safetensors.csv").open() as file:
        rows = list(csv.DictReader(file))
    last = rows[-1]
    assert int(last["step"]) == report["steps"]
    for name in ("psnr_15", "psnr_25", "psnr_50"):
        assert float(facts[name]) == pytest.approx(float(last[name]), abs=1e-3)
        assert report[name] == float(last[name])
    assert float(last["psnr_15"]) > float(last["psnr_25"]) > float(last["psnr_50"])
    assert 0.0 <= report["wait_share"] <= 1.0
    drawn = ElementTree.parse("p.safetensors.svg").getroot()
    assert {"Loss", "sigma 15", "sigma 25", "sigma 50"} <= set(drawn.itertext())


def test_validation_is_the_psnr_of_the_clipped_estimate(photos: Path, tmp_path: Path) -> None:
    """F = 0 makes the denoiser 0.25 / v z: its error is known."""
    run = tiny_run(photos, tmp_path / "out.safetensors")
    found = run.trainer.validate(run.pictures)
    x = torch.cat([x for _, x in run.pictures]).double()
    for sigma in (15, 25, 50):
        s = 2 * sigma / 255
        gain = 0.25 / (s**2 + 0.25)
        expected = ((1 - gain) * x).square().mean() + (gain * s) ** 2
        assert found[f"psnr_{sigma}"] == pytest.approx(10 * math.log10(4 / float(expected)), abs=0.25)


def test_a_grey_prior_restores_grey_pictures(dmps: Dmps, photos: Path, tmp_path: Path) -> None:
    assert dmps("train", photos, "-o", "grey.safetensors", *QUICK, "--channels", "1", "--full").code == 0
    refused = dmps("eval", "--dataset", photos, "--tasks", "denoise,colorize", "--model", "grey.safetensors")
    assert (refused.code, refused.err.count("error:")) == (1, 1), refused.err
    assert "colorize" in refused.err
    assert load_file("grey.safetensors")["inp.weight"].shape[1] == 4
    photo(tmp_path / "c.png", (40, 48))
    grey = np.asarray(Image.open("c.png").convert("L"))
    Image.fromarray(grey).save("g.png")
    model = ("--model", "grey.safetensors", "--nfe", "2")
    for task in (("denoise",), ("inpaint", "--fraction", "0.3"), ("sr2",)):
        result = dmps("restore", "g.png", "--task", *task, "-o", f"g_{task[0]}.png", *model)
        assert result.code == 0, result.err
        assert pixels(f"g_{task[0]}.png").ndim == 2
    colour = dmps("restore", "c.png", "--task", "denoise", "--sigma", "0.3", "-o", "c_out.png", *model)
    assert colour.code == 0, colour.err
    assert "its grey value is restored" in colour.err
    assert pixels("c_out.png").shape == (48, 40)
    share = math.hypot(*GREY_WEIGHTS)
    assert json.loads(Path("c_out.json").read_text())["sigma_y"] == pytest.approx(0.3 * share)
    refused = dmps("restore", "c.png", "--task", "colorize", "-o", "no.png", *model)
    assert refused.code == 1
    assert "restores colour" in refused.err
    # what degrade measured in colour, in exact floats, and its reference
    for task in ("sr2", "inpaint", "cs", "deblur"):
        assert dmps("degrade", "c.png", "--task", task, "-o", f"y_{task}.png").code == 0
        name = f"y_{task}.npy" if task == "cs" else f"y_{task}.png"
        result = dmps("restore", name, "-o", f"r_{task}.png", "--reference", "c.png", *model)
        assert result.code == 0, result.err
        assert "greyscale" in result.out
    (tmp_path / "set").mkdir()
    photo(tmp_path / "set" / "a.png", (40, 48))
    assert dmps("eval", "--dataset", "set", "--tasks", "denoise,sr2", *model).code == 0
    assert dmps("time", "--task", "sr2", "--image-size", "32", "--repeats", "1", *model).code == 0
    assert dmps("eval", "--dataset", "set", "--tasks", "colorize", *model).code == 1


def test_grey_of_a_measurement_is_the_measurement_of_grey() -> None:
    x = randn(2, 3, 6, 5)
    grey, share = to_grey(x)
    assert rel(grey, 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]) <= 1e-12
    noise = to_grey(randn(1, 3, 300, 300, seed=1))[0]
    assert float(noise.std()) == pytest.approx(share, rel=0.02)
    same = randn(1, 1, 4, 4).expand(1, 3, 4, 4)
    assert to_grey(same)[1] == 1.0
    assert torch.equal(to_grey(same)[0], same[:, :1])


def test_a_prior_of_its_own_goes_on_as_the_beginning_of_another(dmps: Dmps, photos: Path) -> None:
    """--init takes over weights and terms, and the file says which; the steps are counted anew."""
    assert dmps("train", photos, "-o", "a.safetensors", *QUICK, "--licence", "mine", "--full").code == 0
    first = read_safetensors(Path("a.safetensors"))[1]
    start = ("train", photos, "-o", "b.safetensors", "--init", "a.safetensors", *SHORT, *QUICK[4:])
    result = dmps(*start, "--resume", "b.safetensors")
    assert result.code == 0, result.err
    assert "its terms go on: mine" in result.err
    began = read_safetensors(Path("b.safetensors"))[1]
    assert (began["licence"], began["widths"]) == ("mine", "32,48,64,96")
    digest = hashlib.sha256(Path("a.safetensors").read_bytes()).hexdigest()
    assert began["initial_weights"] == f"a, sha256 {digest}, {first['steps']} steps, terms: mine"
    assert 1 <= int(began["steps"]) < int(first["steps"])
    found = training.initial_network("a.safetensors", None)
    trainer = training.Start(recipe=Recipe(), config=found.config, net=found.net).trainer(CPU)
    expected = load_file("a.safetensors")
    for part in (trainer.net, trainer.ema):
        assert all(torch.equal(p, expected[name]) for name, p in part.named_parameters())
    again = dmps(*start[:6], "--resume", "b.safetensors", "--steps", "3", "--licence", "yours")  # the same, later
    assert again.code == 0, again.err
    assert "--init a.safetensors was for its first call" in again.err
    later = read_safetensors(Path("b.safetensors"))[1]
    assert (later["initial_weights"], later["licence"]) == (began["initial_weights"], "yours")
    beside = dmps(
        "train", photos, "-o", "c.safetensors", "--init", "a.safetensors", *QUICK[4:], *SHORT, "--licence", "x"
    )
    assert "its terms (mine) are written beside yours: x" in beside.err


def test_what_is_missing_at_the_end_is_made_from_the_state(dmps: Dmps, photos: Path) -> None:
    """As after a kill between the files of the last checkpoint; the same for other terms or another precision."""
    assert dmps("train", photos, "-o", "p.safetensors", *QUICK).code == 0
    files = Files(prior=Path("p.safetensors"))
    kept = {path: path.read_bytes() for path in files.all}
    resume = ("train", photos, "--resume", "p.safetensors")
    for lost in ([files.prior], [files.log, files.picture], [files.prior, files.picture]):
        for path in lost:
            path.unlink()
        done = dmps(*resume)
        assert (done.code, "written anew from its state" in done.err) == (0, True), done.err
        assert {path: path.read_bytes() for path in files.all} == kept
    assert "nothing to do" in dmps(*resume).err
    assert dmps(*resume, "--licence", "mine", "--full").code == 0
    tensors, facts = read_safetensors(files.prior)
    assert (facts["licence"], facts["precision"], tensors["mid.0.c1.weight"].dtype) == (
        "mine",
        "float32",
        torch.float32,
    )
    again = dmps(*resume)  # the state knows
    assert "nothing to do" in again.err
    assert read_safetensors(files.prior)[1]["licence"] == "mine"
    files.prior.write_bytes(kept[files.prior].replace(b'"steps":"', b'"steps":"1'))  # of another checkpoint
    assert "written anew" in dmps(*resume, "--licence", "mine").err


def test_files_of_the_training_are_no_photographs(dmps: Dmps, photos: Path) -> None:
    """With OUT among the photographs: the picture of the log is not one of them; the data stay the same."""
    out = photos / "p.safetensors"
    assert dmps("train", photos, "-o", out, *QUICK).code == 0
    first = read_safetensors(out)[1]
    assert Path(f"{out}.svg").exists()
    done = dmps("train", photos, "--resume", out, "--steps", "12")
    assert "not those of the earlier calls" not in done.err
    assert read_safetensors(out)[1]["photographs_sha256"] == first["photographs_sha256"]


def test_figures_of_other_photographs_are_not_kept(dmps: Dmps, photos: Path, tmp_path: Path) -> None:
    """What is measured on others is said, and the file has no PSNR of earlier ones."""
    assert dmps("train", photos, "-o", "p.safetensors", *QUICK).code == 0
    first = read_safetensors(Path("p.safetensors"))[1]
    assert int(first["psnr_step"]) == int(first["steps"])
    (tmp_path / "others").mkdir()
    photo(tmp_path / "others" / "a.png", (64, 64), seed=77)
    more = ("train", photos, "--resume", "p.safetensors", "--steps")
    done = dmps(*more, "12", "--validate", "others")
    assert "no PSNR compares" in done.err
    later = read_safetensors(Path("p.safetensors"))[1]
    assert int(later["psnr_step"]) == int(later["steps"]) > int(later["validation_since"]) == int(first["steps"])
    run = tiny_run(photos, tmp_path / "out.safetensors")
    run.facts = {"validation_since": "24"}  # as of a call after the 24 steps of this one, on other photographs
    run.train()
    assert run.psnr
    assert not [name for name in read_safetensors(run.files.prior)[1] if name.startswith("psnr")]


def test_nothing_that_is_measured_on_is_trained_on(dmps: Dmps, photos: Path, tmp_path: Path) -> None:
    """Also a copy under another name; the folder to measure on is kept by later calls, as the file's list shows."""
    (tmp_path / "val").mkdir()
    photo(tmp_path / "val" / "v.png", (64, 64), seed=77)
    for name in ("copy.png", "more/v.png"):
        (photos / name).write_bytes((tmp_path / "val" / "v.png").read_bytes())
    done = dmps("train", photos, "-o", "p.safetensors", *QUICK, "--validate", "val")
    assert done.code == 0, done.err
    assert "2 copies of photographs to measure on are left out" in done.err
    assert "8 photographs to train on, 1 to measure on" in done.err
    first = read_safetensors(Path("p.safetensors"))[1]
    later = dmps("train", photos, "--resume", "p.safetensors", "--steps", "12")
    assert "not those of the earlier calls" not in later.err
    second = read_safetensors(Path("p.safetensors"))[1]
    same = ("validation_sha256", "photographs_sha256", "validation_since")
    assert [second[name] for name in same] == [first[name] for name in same]
    assert str(tmp_path) not in json.dumps(second)
    (tmp_path / "val").rename(tmp_path / "elsewhere")
    gone = dmps("train", photos, "--resume", "p.safetensors", "--steps", "18")
    assert (gone.code, f"--validate {tmp_path / 'val'} is not a folder" in gone.err) == (1, True), gone.err
    twice = tmp_path / "twice"
    twice.mkdir()
    for name in ("a.png", "b.png"):
        photo(twice / name, (64, 64))
    assert "no photograph is left to measure on" in dmps("train", twice, "-o", "t.safetensors", *QUICK).err


def test_what_dmps_made_is_no_photograph(dmps: Dmps, photos: Path) -> None:
    assert dmps("degrade", photos / "0.png", "--task", "denoise", "-o", photos / "y.png").code == 0
    assert dmps("restore", photos / "y.png", "--nfe", "1", "-o", photos / "x.png").code == 0
    photo(photos / "other.safetensors.png", (64, 64))
    done = dmps("train", photos, "-o", "p.safetensors", *QUICK)
    assert done.code == 0, done.err
    assert "3 pictures that dmps made are left out" in done.err
    assert "7 photographs to train on, 1 to measure on" in done.err


def test_why_a_photograph_is_skipped(dmps: Dmps, photos: Path) -> None:
    (photos / "text.png").write_text("no picture")
    done = dmps("train", photos, "-o", "p.safetensors", *QUICK)
    assert "1 damaged skipped" in done.err
    assert f"{photos}/text.png" in done.err.partition("skipped: ")[2]


def test_an_unreadable_folder_is_said(dmps: Dmps, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refused(path: str) -> Any:
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    done = dmps("train", photos, "-o", "p.safetensors", *QUICK)
    assert done.code == 0, done.err
    assert f"the folder {photos}/more cannot be read" in done.err
    assert read_safetensors(Path("p.safetensors"))[1]["photographs"] == "3"


def test_one_unreadable_photograph_to_measure_on_is_skipped(
    dmps: Dmps, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its size is that of one to train on."""
    (tmp_path / "val").mkdir()
    photo(tmp_path / "val" / "a.png", (64, 64), seed=77)
    (tmp_path / "val" / "b.png").write_bytes((photos / "0.png").read_bytes())

    def refusing(opening: Callable[..., Any]) -> Callable[..., Any]:
        def refused(path: Any, *arguments: Any, **options: Any) -> Any:
            if str(path).endswith("b.png"):
                raise PermissionError(13, "Permission denied", str(path))
            return opening(path, *arguments, **options)

        return refused

    for module in (builtins, io, os):  # Pillow has it of the first, pathlib of the second, the package of the third
        monkeypatch.setattr(module, "open", refusing(module.open))
    done = dmps("train", photos, "-o", "p.safetensors", *QUICK, "--validate", "val")
    assert done.code == 0, done.err
    assert "8 photographs to train on, 1 to measure on; 1 damaged skipped" in done.err


def test_the_picture_of_the_log_is_not_measured_on(dmps: Dmps, photos: Path, tmp_path: Path) -> None:
    """OUT within the folder to measure on: later calls measure on the same."""
    (tmp_path / "val").mkdir()
    photo(tmp_path / "val" / "a.png", (64, 64), seed=77)
    assert dmps("train", photos, "-o", "val/p.safetensors", *QUICK, "--validate", "val").code == 0
    done = dmps("train", photos, "--resume", "val/p.safetensors", "--steps", "12")
    assert "8 photographs to train on, 1 to measure on" in done.err
    assert "no PSNR compares" not in done.err


def test_another_crop_measures_on_others_and_says_so(dmps: Dmps, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    photo(tmp_path / "val" / "a.png", (64, 64), seed=77)
    photo(tmp_path / "val" / "b.png", (64, 40), seed=78)
    assert dmps("train", photos, "-o", "p.safetensors", *QUICK, "--validate", "val").code == 0
    done = dmps("train", photos, "--resume", "p.safetensors", "--steps", "12", "--crop", "48")
    assert "no PSNR compares with theirs" in done.err


def test_checkpoints_are_said_without_photographs_to_measure_on(dmps: Dmps, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    photo(tmp_path / "one" / "a.png", (64, 64))
    done = dmps("train", "one", "-o", "p.safetensors", *QUICK)
    assert done.code == 0, done.err
    assert "step 6, " in done.err
    assert ", 100.0%\n" in done.err


def test_without_room_for_the_first_state_there_is_no_prior(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota, say, which no question before tells: a prior alone would stand in the next call's way."""
    run = tiny_run(photos, tmp_path / "out.safetensors")

    def failing(*_: object) -> None:
        raise OutputError("no room on the disk for the state")

    monkeypatch.setattr(training, "write_state", failing)
    with pytest.raises(OutputError, match="for the state"):
        run.train()
    assert not run.files.prior.exists()


def test_a_state_written_anew_meanwhile_is_not_mixed(photos: Path, tmp_path: Path) -> None:
    """By the process that trains it, while another one begins a copy."""
    run = tiny_run(photos, tmp_path / "out.safetensors")
    run.save()
    saved = read_state(run.files)
    run.trainer.step += 1
    run.save()
    with pytest.raises(WeightsError, match="run again"):
        saved.tensors()


def test_small_photographs_are_not_measured_on(dmps: Dmps, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    photo(tmp_path / "val" / "a.png", (64, 64), seed=77)
    photo(tmp_path / "val" / "b.png", (64, 31), seed=78)
    done = dmps("train", photos, "-o", "p.safetensors", *QUICK, "--validate", "val", "--json")
    assert "8 photographs to train on, 1 to measure on; 1 smaller than the crop of 32 px skipped" in done.err
    assert json.loads(done.out)["photographs"]["skipped_small"] == 1


def test_out_of_memory_says_what_helps(dmps: Dmps, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Trainer, batch: TrainingBatch) -> float:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(Trainer, "take_step", failing)
    result = dmps("train", photos, "-o", "p.safetensors", *QUICK)
    assert result.code == 1
    assert "out of memory; take a smaller --batch or --crop" in result.err


def test_a_lock_with_content_is_somebody_elses(dmps: Dmps, photos: Path) -> None:
    Path("p.safetensors.lock").write_text("mine")
    result = dmps("train", photos, "-o", "p.safetensors", *QUICK)
    assert (result.code, Path("p.safetensors.lock").read_text()) == (1, "mine")


def test_names_and_terms_that_are_no_text(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are not UTF-8 come as surrogates; nothing could read the file that they would make."""
    odd = os.fsdecode(b"o\xff.safetensors")
    for options in (("-o", odd), ("-o", "p.safetensors", "--licence", os.fsdecode(b"\xff terms"))):
        command = [sys.executable, "-m", "dmps_cli", "train", str(photos), *options, *QUICK]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, errors="surrogateescape", check=False
        )
        assert (done.returncode, "UTF-8" in done.stderr) == (2, True), done.stderr
    monkeypatch.setattr(checkpoints, "kind_of", lambda path: "safetensors")  # not every file system has such names
    with pytest.raises(WeightsError, match="rename it"):
        read_safetensors(tmp_path / odd)


def test_weights_of_another_preconditioning_are_refused(dmps: Dmps, photos: Path) -> None:
    state = {name: value.clone() for name, value in initialised(TINY, 0).state_dict().items()}
    for told, said in (("0.7", "its sigma_data is 0.7"), ("much", "expected a number")):
        save_file(state, "w.safetensors", {"architecture": "natural", "sigma_data": told})
        result = dmps("train", photos, "-o", "a.safetensors", "--init", "w.safetensors", *SHORT)
        assert result.code == 1
        assert said in result.err


def test_terms_of_ones_own_prior_are_shown(dmps: Dmps, photos: Path) -> None:
    assert dmps("train", photos, "-o", "p.safetensors", *QUICK, "--licence", "CC BY 4.0").code == 0
    assert re.search(r"^ licence +CC BY 4\.0$", dmps("models", "show", "p.safetensors").out, re.MULTILINE)


def test_what_a_call_does_is_said(dmps: Dmps, photos: Path) -> None:
    """Before it reads the photographs: sizes, colours, time; later, what is not as before."""
    first = dmps("train", photos, "-o", "p.safetensors", *QUICK, "--channels", "1", "--device", "cpu").err
    values = sum(value.numel() for value in load_file("p.safetensors").values())
    assert f"small, {values:,} values, grey; cpu" in first
    assert "6 steps at lr up to 0.003, 1 crop of 32 px a step" in first
    later = dmps("train", photos, "--resume", "p.safetensors", "--steps", "12", "--lr", "0.001", "--seed", "0").err
    assert "from here on: steps 12 (it was 6), lr 0.001 (it was 0.003)\n" in later
    assert "PSNR at sigma 15, 25, 50 of 255" in later
    assert "from here on" not in dmps("train", photos, "--resume", "p.safetensors", "--lr", "0.002").err


def test_lines_fit_a_terminal(dmps: Dmps, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long training, the bar of 20 columns left out of the count."""
    progress = training.TrainingProgress(
        step=123456, seconds=35999.0, loss=0.26, steps_per_second=12.34, psnr={"a": 33.26, "b": 30.53, "c": 27.16}
    )
    shown: list[str] = []
    monkeypatch.setattr(Console, "note", lambda self, text: shown.append(f"dmps: {text}"))
    for budget in (Minutes(amount=600.0), Steps(amount=400_000)):
        reporter(budget, Console(), lambda done, text: shown.append(text))(replace(progress, is_checkpoint=True))
    assert [len(line) <= 79 for line in shown] == [True] * 4, shown


def test_half_takes_full_back(dmps: Dmps, photos: Path) -> None:
    assert dmps("train", photos, "-o", "p.safetensors", *QUICK, "--full").code == 0
    assert load_file("p.safetensors")["mid.0.c1.weight"].dtype == torch.float32
    assert dmps("train", photos, "--resume", "p.safetensors", "--half").code == 0
    assert load_file("p.safetensors")["mid.0.c1.weight"].dtype == torch.float16


def test_two_processes_do_not_train_one_prior(dmps: Dmps, photos: Path) -> None:
    """A process that holds the file, then is killed; what it leaves of its lock stands in nobody's way."""
    code = (
        "import sys; from pathlib import Path; from dmps_cli.training.state import Files, sole_writer\n"
        "with sole_writer(Files(prior=Path('p.safetensors'))): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            refused = dmps("train", photos, "-o", "p.safetensors", *QUICK)
        finally:
            other.kill()
    assert refused.code == 1
    assert "another process trains p.safetensors" in refused.err
    assert [path.name for path in Path().glob("p.safetensors*")] == ["p.safetensors.lock"]
    done = dmps("train", photos, "-o", "p.safetensors", *QUICK)
    assert done.code == 0, done.err
    assert not Path("p.safetensors.lock").exists()


def test_folders_are_made_for_a_prior_and_for_nothing_else(dmps: Dmps, photos: Path) -> None:
    refused = dmps("train", photos, "-o", "new/deep/p.safetensors", *SHORT, "--init", "ffhq")
    assert refused.code == 1
    assert not Path("new").exists()
    done = dmps("train", photos, "-o", "new/deep/p.safetensors", *QUICK)
    assert done.code == 0, done.err
    assert {path.suffix for path in Path("new/deep").iterdir()} == {".safetensors", ".state", ".csv", ".svg"}


def test_the_same_file_spelled_differently_is_the_same(dmps: Dmps, photos: Path, tmp_path: Path) -> None:
    done = dmps("train", photos, "-o", "p.safetensors", "--resume", tmp_path / "p.safetensors", *QUICK)
    assert done.code == 0, done.err
    assert "this is the first call" in done.err


@pytest.mark.parametrize("kind", ["flat", "two channels", "nan"])
def test_weights_that_are_none_are_refused(dmps: Dmps, photos: Path, kind: str) -> None:
    state = {name: value.clone() for name, value in initialised(TINY, 0).state_dict().items()}
    if kind == "flat":
        state["inp.weight"] = state["inp.weight"].flatten()
    elif kind == "two channels":
        state["inp.weight"], state["out.weight"] = torch.zeros(8, 8, 3, 3), torch.zeros(8, 8, 3, 3)
    else:
        state["mid.0.c1.weight"][0] = math.nan
    save_file(state, "w.safetensors", {"architecture": "natural"})
    result = dmps("train", photos, "-o", "a.safetensors", "--init", "w.safetensors", *SHORT)
    assert (result.code, result.err.count("\n")) == (1, 1), result.err
    assert not list(Path().glob("a.safetensors*"))


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock for `--minutes` that is 0.2 s later whenever a training looks at it: after each step."""
    looks = itertools.count()
    monkeypatch.setattr(
        training, "time", SimpleNamespace(monotonic=lambda: 0.2 * next(looks), perf_counter=time.perf_counter)
    )


@pytest.mark.usefixtures("slow_clock")
def test_later_minutes_go_on(dmps: Dmps, photos: Path) -> None:
    assert dmps("train", photos, "-o", "p.safetensors", "--minutes", "0.02", *QUICK[2:]).code == 0
    first = read_state(Files(prior=Path("p.safetensors"))).facts
    done = dmps("train", photos, "--resume", "p.safetensors", "--minutes", "0.02")
    assert "nothing to do" in done.err
    assert read_state(Files(prior=Path("p.safetensors"))).facts == first
    elsewhere = dmps("train", photos, "--resume", "p.safetensors", "-o", "q.safetensors")
    assert (elsewhere.code, elsewhere.out) == (0, "q.safetensors\n")
    assert Path("q.safetensors").read_bytes() == Path("p.safetensors").read_bytes()
    assert read_state(Files(prior=Path("q.safetensors"))).facts == first
    more = dmps("train", photos, "--resume", "p.safetensors.state", "--minutes", "0.04")
    assert more.code == 0, more.err
    later = read_state(Files(prior=Path("p.safetensors"))).facts
    assert later["step"] > first["step"]
    assert later["seconds"] >= 0.04 * 60
    assert later["rows"][: len(first["rows"])] == first["rows"]


@pytest.mark.usefixtures("slow_clock")
def test_steps_may_follow_minutes(dmps: Dmps, photos: Path) -> None:
    assert dmps("train", photos, "-o", "p.safetensors", "--minutes", "0.01", *QUICK[2:]).code == 0
    first = read_state(Files(prior=Path("p.safetensors"))).facts["step"]
    more = dmps("train", photos, "--resume", "p.safetensors", "--steps", str(first + 2))
    assert f"from here on: steps {first + 2} (it was 0.01 min)\n" in more.err
    assert read_state(Files(prior=Path("p.safetensors"))).facts["step"] == first + 2
    assert "more --steps train it on" in dmps("train", photos, "--resume", "p.safetensors").err


def test_existing_files_are_left_alone(dmps: Dmps, photos: Path) -> None:
    """Any of the four stands in the way, and stays as it is."""
    for name in ("p.safetensors", "p.safetensors.state", "p.safetensors.csv", "p.safetensors.svg"):
        Path(name).write_text("mine")
        result = dmps("train", photos, "-o", "p.safetensors", *QUICK)
        assert result.code == 1
        assert "--overwrite" in result.err
        assert Path(name).read_text() == "mine"
        Path(name).unlink()
    Path("p.safetensors").write_text("mine")
    assert dmps("train", photos, "-o", "p.safetensors", "--overwrite", *QUICK).code == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["p", "-o", "a.pt"], 2, "ends in .safetensors"),
        (["p"], 2, "name the file to write"),
        (["p", "-o", "a.safetensors", "--minutes", "0"], 2, "--minutes is 0"),
        (["p", "-o", "a.safetensors", "--minutes", "nan"], 2, "--minutes is nan"),
        (["p", "-o", "a.safetensors", "--minutes", "1e9"], 2, "at most 1e+06"),
        (["p", "-o", "a.safetensors", "--steps", "0"], 2, "--steps is 0"),
        (
            ["p", "-o", "a.safetensors", "--steps", "10", "--minutes", "1"],
            2,
            "--minutes and --steps exclude each other",
        ),
        (["p", "-o", "a.safetensors", "--licence", " "], 2, "--licence is empty"),
        (["p", "--resume", "natural"], 2, "--resume natural: a prior's file ends in"),
        (["p", "--resume", "other.safetensors", "--overwrite"], 2, "exclude each other"),
        (["p", "-o", "a.safetensors", "--validate", "nowhere"], 1, "nowhere is not a folder; name one with"),
        (["p", "-o", "a.safetensors", "--crop", "100"], 2, "multiple of 16"),
        (["p", "-o", "a.safetensors", "--batch", "0"], 2, "--batch is 0"),
        (["p", "-o", "a.safetensors", "--lr", "2"], 2, "--lr is 2"),
        (["p", "-o", "a.safetensors", "--channels", "2"], 2, "--channels is 2; expected one of 3, 1"),
        (["p", "-o", "a.safetensors", "--size", "bas"], 2, "did you mean 'base'"),
        (["p", "-o", "a.safetensors", "--seed", "-1"], 2, "--seed"),
        (["p", "-o", "a.safetensors", "--device", "tpu"], 2, "device"),
        (["nowhere", "-o", "a.safetensors"], 1, "nowhere is not a folder"),
        (["empty", "-o", "a.safetensors"], 1, "no photographs"),
        (["broken", "-o", "a.safetensors"], 1, "no usable photographs"),
        (["p", "-o", "a.safetensors", "--validate", "p"], 1, "none is left to train on"),
        (["p", "-o", "a.safetensors", "--validate", "empty"], 1, "holds no photographs"),
        (["p", "-o", "a.safetensors", "--init", "ffhq"], 1, "architecture adm"),
        (["p", "-o", "a.safetensors", "--init", "other.safetensors"], 1, "none of the networks"),
        (["p", "-o", "a.safetensors", "--init", "nothing"], 2, "unknown model"),
        (["p", "-o", "a.safetensors", "--init", "natural", "--channels", "1"], 2, "has 3 channels"),
        (["p", "-o", "a.safetensors", "--init", "natural", "--size", "base"], 2, "exclude each other"),
        (["p", "--resume", "other.safetensors"], 1, "no weights of this architecture"),
        (["p", "--resume", "mistyped.safetensors"], 1, "there is no mistyped.safetensors.state"),
        (["p", "-o", "a.safetensors", "--resume", "nothing.safetensors"], 1, "there is no nothing.safetensors.state"),
        (["p", "--resume", "cut.safetensors"], 1, "cut.safetensors.state"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    dmps: Dmps, tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    (tmp_path / "p").mkdir()
    photo(tmp_path / "p" / "a.png", (200, 200))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors.state").write_bytes(b"cut")
    result = dmps("train", *options)
    assert (result.code, result.out) == (code, ""), result.err
    assert said in result.err
    assert result.err.count("\n") <= 2
    assert not list(tmp_path.glob("a.safetensors*"))


def test_a_full_disk(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for every checkpoint to come no step is made; later it is said; the prior is written if it fits."""
    run = tiny_run(photos, tmp_path / "out.safetensors")
    run.save()
    state, prior = (path.stat().st_size for path in (run.files.state, run.files.prior))
    for path in run.files.all:
        path.unlink(missing_ok=True)
    free = [2 * state]  # for the first checkpoint, but not for a second beside it
    monkeypatch.setattr(training_files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[0]))
    with pytest.raises(OutputError, match="no room on the disk"):
        run.train()
    assert not run.files.prior.exists()
    free[0] = 2 * state + 2 * prior
    said: list[str] = []
    run.note, write = said.append, training.write_state

    def failing(files: Files, trainer: Trainer, facts: dict[str, str]) -> None:
        if trainer.step > 0:
            raise OutputError("no room on the disk for the state")
        write(files, trainer, facts)

    monkeypatch.setattr(training, "write_state", failing)
    with pytest.raises(OutputError, match="for the state"):
        run.train()
    assert said
    assert all("the training goes on" in text for text in said)
    assert (read_state(run.files).facts["step"], read_safetensors(run.files.prior)[1]["steps"]) == (0, "24")
    free[0] = state  # as much as the next state takes beside the last
    check_room(run.files, run.trainer)
    free[0] = state // 2
    with pytest.raises(OutputError, match="no room"):
        check_room(run.files, run.trainer)


def test_files_of_killed_runs_are_removed(photos: Path, tmp_path: Path) -> None:
    """But for those of others, and those that a process writes to, which holds their lock."""
    run = tiny_run(photos, tmp_path / "out.safetensors")
    names = (
        ".out.safetensors.state.0f.part",
        ".out.safetensors.0f.part",
        ".out.safetensors.csv.new.part",
        ".else.0f.part",
        ".out.safetensors.svg.0f.part",
    )
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    with (tmp_path / names[4]).open("r+b") as file:
        assert try_lock(file)
        run.train()
    assert {path.name for path in tmp_path.glob(".*")} == {*names[2:]}


def test_a_damaged_state_is_said(photos: Path, tmp_path: Path) -> None:
    run = tiny_run(photos, tmp_path / "out.safetensors", last=0)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    whole = run.files.state.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole.replace(b"ema.inp.weight", b"ema.inp.weighs")):
        run.files.state.write_bytes(damaged)
        with pytest.raises(WeightsError, match="damaged"):
            read_state(run.files)
    run.files.state.unlink()
    with pytest.raises(WeightsError, match="--init"):
        read_state(run.files)


def test_the_log_is_drawn_as_it_stands() -> None:
    rows = [{"step": 0, "loss": 1.0, "psnr_15": None}, {"step": 7, "loss": 0.5, "psnr_15": 30.0}]
    loss, psnr = curves.log_charts(rows, ["psnr_15"])
    assert [*loss.series[0].points] == [(0, 1.0), (7, 0.5)]
    assert [(line.label, *line.points) for line in psnr.series] == [("sigma 15", (7, 30.0))]


def test_without_matplotlib_a_training_has_all_but_the_drawn_log(
    dmps: Dmps, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_import(monkeypatch, "matplotlib", ImportError("no matplotlib"))
    done = dmps("train", photos, "-o", "p.safetensors", *QUICK)
    assert (done.code, "pip install 'dmps-cli[plots]'" in done.err) == (0, True), done.err
    files = Files(prior=Path("p.safetensors"))
    assert [path.exists() for path in files.all] == [True, True, True, False]
    assert "nothing to do" in dmps("train", photos, "--resume", "p.safetensors").err
