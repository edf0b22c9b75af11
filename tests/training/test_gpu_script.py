"""The training for a GPU machine (benchmarks/train_gpu.sh, pack_gpu.py), here on the CPU, and larger networks.

The learner of the script is compared with the trainer of the package; crops with the pixels that they come from.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import dmps_cli
from benchmarks import pack_gpu, train_gpu
from benchmarks.device_photos import DevicePhotos, mirrored
from benchmarks.train_gpu import GpuRun, Learner, Plan, draw, grouped
from dmps_cli.errors import InputError, MemoryShortageError, WeightsError
from dmps_cli.files.tensors import load_plain
from dmps_cli.nets.beginnings import grown, initialised
from dmps_cli.nets.natural import SIZES, Attention, NaturalConfig, NaturalNet, peak_bytes_per_pixel
from dmps_cli.nets.natural_state import natural_from_state
from dmps_cli.training.muon import Muon, as_matrix, is_orthogonalised
from dmps_cli.training.noise_levels import LevelLosses, NoiseLevels
from dmps_cli.training.objective import edm_loss, learning_rate, power_decay, psnr, stored
from dmps_cli.training.photographs import TrainingBatch
from dmps_cli.training.trainer import Recipe, Trainer
from dmps_cli.weights.reading import read_safetensors
from tests.conftest import randn, rel
from tests.shell import Dmps, photo

ROOT = Path(__file__).parents[2]
BUNDLED = Path(dmps_cli.__file__).parent / "data" / "natural.safetensors"
CPU = torch.device("cpu")
TINY = NaturalConfig(widths=(8, 16), num_blocks=1, emb_width=16, num_frequencies=4)
PLAN = Plan(size="tiny", minutes=1.0, steps=None, lr=1e-3, seed=3, crop=32, batch=4)


def photographs(count: int = 3) -> list[Tensor]:
    """(H, W, 3) of uint8, of several sizes."""
    generators = [np.random.default_rng(k) for k in range(count)]
    return [torch.from_numpy(rng.integers(0, 256, (50 + k, 40, 3), np.uint8)) for k, rng in enumerate(generators)]


# Larger networks ------------------------------------------------------------------------------------------------------


def moved(net: NaturalNet) -> NaturalNet:
    """No value of it is 0 any more."""
    for k, parameter in enumerate(net.parameters()):
        parameter.add_(0.1 * randn(*parameter.shape, seed=k).float())
    return net


LARGER = [
    NaturalConfig(widths=(8, 16), num_blocks=(3, 2), emb_width=16, num_frequencies=4),
    NaturalConfig(widths=(12, 20), num_blocks=1, emb_width=16, num_frequencies=4),
    NaturalConfig(widths=(8, 24), num_blocks=(1, 3), has_attention=True, emb_width=16, num_frequencies=4),
]


@pytest.mark.parametrize("config", LARGER, ids=str)
def test_a_grown_network_computes_what_the_smaller_one_does(config: NaturalConfig) -> None:
    small = moved(initialised(TINY, 0))
    large = grown(small.state_dict(), config, 1, "small")
    u, c = randn(2, 3, 21, 34), torch.tensor([-0.4, 0.9])
    assert rel(large.double()(u, c), small.double()(u, c)) <= 1e-6  # factors of the weights are rounded to float32
    assert NaturalConfig.from_state(large.state_dict(), "large") == config


@pytest.mark.parametrize("config", LARGER, ids=str)
def test_all_of_a_grown_network_is_reached_by_gradients(config: NaturalConfig) -> None:
    """After three steps on random losses no tensor is as it was: nothing that is new stays at 0."""
    net = grown(moved(initialised(TINY, 0)).state_dict(), config, 1, "small")
    begun = {name: p.clone() for name, p in net.named_parameters()}
    trainer = Trainer(net, config, Recipe(lr=0.02), CPU)
    for k in range(3):
        x = (randn(2, 3, 16, 16, seed=k).clamp(-1, 1) * 127 + 127).to(torch.uint8)
        trainer.take_step(TrainingBatch(x, torch.tensor([0.2, 1.0]), randn(2, 3, 16, 16, seed=9 + k).float()))
    new = {name: p for name, p in net.named_parameters() if name in begun}
    changed = {name: (p != begun[name]).flatten(1) if p.ndim > 1 else p != begun[name] for name, p in new.items()}
    assert not [name for name, is_new in changed.items() if not is_new.all(-1).any() or not is_new.any(0).all()]


def test_networks_do_not_shrink() -> None:
    state = initialised(TINY, 0).state_dict()
    for config in (
        NaturalConfig(widths=(4, 16), num_blocks=1, emb_width=16, num_frequencies=4),
        NaturalConfig(widths=(8, 16), num_blocks=1, emb_width=32, num_frequencies=4),
        NaturalConfig(widths=(8, 16, 16), num_blocks=1, emb_width=16, num_frequencies=4),
    ):
        with pytest.raises(WeightsError, match="cannot grow"):
            grown(state, config, 0, "small")


def test_the_bundled_weights_begin_the_large_network() -> None:
    """Step 0 of the training is today's network; its cost and its file stay within their limits."""
    state = load_file(BUNDLED)
    large = grown(state, SIZES["large"], 0, "natural")
    small = natural_from_state(state, "natural").net
    u, c = randn(1, 3, 40, 56).float(), torch.tensor([-0.3])
    assert rel(large(u, c), small(u, c)) <= 1e-5
    assert sum(value.numel() * value.element_size() for value in stored(large.state_dict()).values()) <= 24e6
    assert [peak_bytes_per_pixel(net.state_dict(), "float32") for net in (small, large)] == [900.0, 1350.0]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        NaturalNet(SIZES["large"]).requires_grad_(False)(torch.empty(1, 3, 256, 256), torch.empty(1))
    assert counter.get_total_flops() <= 40e9


def test_attention_is_its_formula() -> None:
    """Two heads, one place and one head after the other, in float64; in either memory format."""
    module, x = Attention(128).double(), randn(2, 128, 3, 5)

    def normalised(v: Tensor) -> Tensor:
        return v / (v.square().mean() + 1e-4).sqrt()

    expected = x.clone()
    for image, out in zip(x, expected, strict=True):
        places = [
            module.qkv.weight[:, :, 0, 0] @ normalised(place) + module.qkv.bias for place in image.flatten(1).unbind(1)
        ]
        q, k, v = (torch.stack(part).unflatten(1, (2, 64)) for part in zip(*(p.chunk(3) for p in places), strict=True))
        for here in range(15):
            seen = []
            for head in range(2):
                logits = [float(normalised(q[here, head]) @ normalised(k[there, head])) / 8.0 for there in range(15)]
                seen.append(torch.softmax(torch.tensor(logits, dtype=torch.float64), 0) @ v[:, head])
            out[:, here // 5, here % 5] += module.proj.weight[:, :, 0, 0] @ torch.cat(seen) + module.proj.bias
    assert rel(module(x), expected) <= 1e-12
    assert rel(module(x.contiguous(memory_format=torch.channels_last)), expected) <= 1e-12


# What a step sees -----------------------------------------------------------------------------------------------------


def test_mirrored_places_are_numpys_symmetric_padding() -> None:
    row = np.arange(5)
    expected = np.pad(row, (7, 9), mode="symmetric")
    assert mirrored(torch.arange(-7, 14), torch.tensor(5)).tolist() == expected.tolist()


def test_windows_are_parts_of_the_photographs_in_all_eight_positions() -> None:
    """Pixels say where they stand: (row, column, which photograph)."""
    rows, columns = torch.meshgrid(torch.arange(30), torch.arange(40), indexing="ij")
    pictures = [torch.stack([rows, columns, torch.full_like(rows, k)], -1).to(torch.uint8) for k in range(2)]
    found = DevicePhotos.of(pictures, CPU).windows(400, 13, torch.Generator().manual_seed(0)).long()
    seen = set()
    for row, column, which in found:
        corner = int(row.min()), int(column.min())
        assert {*zip(row.flatten().tolist(), column.flatten().tolist(), strict=True)} == {
            (corner[0] + r, corner[1] + c) for r in range(13) for c in range(13)
        }
        values = 40 * row + column
        seen.add((int(values[0, 1] - values[0, 0]), int(values[1, 0] - values[0, 0]), int(which[0, 0])))
        assert which.unique().numel() == 1
    steps = {(a, b) for a in (1, -1, 40, -40) for b in (1, -1, 40, -40) if abs(a) != abs(b)}
    assert seen == {(a, b, k) for a, b in steps for k in range(2)}


def test_windows_of_a_small_photograph_are_mirrored() -> None:
    picture = torch.randint(0, 256, (6, 9, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    padded = np.pad(picture.numpy(), ((0, 14), (0, 11), (0, 0)), mode="symmetric")
    expected = {np.ascontiguousarray(np.rot90(p, k)).tobytes() for p in (padded, padded[::-1]) for k in range(4)}
    windows = DevicePhotos.of([picture], CPU).windows(60, 20, torch.Generator().manual_seed(1))
    assert {np.ascontiguousarray(w.permute(1, 2, 0).numpy()).tobytes() for w in windows} <= expected


def test_shrunk_crops_are_those_of_pillow() -> None:
    """A photograph as large as the window, shrunk with an antialiased bicubic filter, in one of its eight positions."""
    picture = torch.from_numpy(np.asarray(Image.effect_mandelbrot((40, 40), (-2, -1, 1, 1), 50).convert("RGB")).copy())
    shrunk = np.asarray(Image.fromarray(picture.numpy()).resize((32, 32), Image.Resampling.BICUBIC)).astype(float)
    crops = DevicePhotos.of([picture], CPU).crops(12, 32, 0.8, torch.Generator().manual_seed(0))
    for crop in (crops.permute(0, 2, 3, 1).numpy() + 1.0) * 127.5:
        eight = [np.rot90(p, k) for p in (shrunk, shrunk[::-1]) for k in range(4)]
        assert min(np.abs(crop - one).mean() for one in eight) <= 1.0  # Pillow's is in whole numbers


def test_a_step_is_a_function_of_the_plan_and_its_number() -> None:
    photos, levels = DevicePhotos.of(photographs(), CPU), NoiseLevels()
    for step in (2, 3):
        once, again = draw(photos, PLAN, levels, step), draw(photos, PLAN, levels, step)
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    sides = {PLAN.shape(step) for step in range(400)}
    assert {side for count, side in sides if count == 4} == {32}
    assert {side for count, side in sides if count == 1} == set(range(49, 65))
    scales = sorted(map(PLAN.scale, range(200)))
    assert 0.5 <= scales[0] <= 0.55
    assert 0.95 <= scales[-1] <= 1.0


# The learner ----------------------------------------------------------------------------------------------------------


def test_the_learner_takes_the_steps_of_the_trainer() -> None:
    """The same crops, noise and rates: the same weights."""
    trainer = Trainer(initialised(TINY, 0), TINY, Recipe(lr=2e-3), CPU)
    learner = Learner(initialised(TINY, 0), CPU)
    photos = DevicePhotos.of(photographs(), CPU)
    for step in range(5):
        x, s, eps = draw(photos, PLAN, learner.levels, step)
        pixels = ((x + 1.0) * 127.5).round().to(torch.uint8)
        lr = trainer.lr
        trainer.take_step(TrainingBatch(pixels, s, eps))
        learner.take_step(pixels.float() / 127.5 - 1.0, s, eps, lr)
    for (name, ours), theirs in zip(learner.net.named_parameters(), trainer.net.parameters(), strict=True):
        assert rel(ours, theirs) <= 1e-5, name
    assert learner.losses.means == pytest.approx(trainer.losses.means)


def test_nothing_of_a_step_leaves_the_gpu() -> None:
    """On fake tensors of a GPU, where an operation on two devices is an error: crops, levels, losses, the kernels."""
    gpu, levels = torch.device("cuda:0"), NoiseLevels()
    with FakeTensorMode(), torch.device(gpu):
        sides = torch.empty(3, dtype=torch.long)
        pixels = torch.empty(9000, 3, dtype=torch.uint8)
        photos = DevicePhotos(pixels=pixels, starts=sides, heights=sides, widths=sides)
        x = torch.cat([photos.crops(2, 24, scale, None) for scale in (1.0, 0.7)])  # type: ignore[arg-type]
        kind, u = torch.rand(2, 4, dtype=torch.float64)
        s = levels.at(kind, u).float()
        net = NaturalNet(replace(TINY, has_attention=True)).requires_grad_(False)
        losses = edm_loss(net, x, s, torch.empty_like(x))
        means = LevelLosses(levels, device=gpu)
        weights = means.weights(s)
        means.update(s, losses)
        kernels = {name: p for name, p in net.named_parameters() if is_orthogonalised(name, p)}
        matrices = {name: as_matrix(p.contiguous(memory_format=torch.channels_last)) for name, p in kernels.items()}
        Muon(matrices).step({name: torch.empty_like(matrix) for name, matrix in matrices.items()}, 1e-3)
        results = [x, s, losses, weights, means.weights(s), *matrices.values()]
    assert {result.device for result in results} == {gpu}
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_the_averages_have_their_closed_form() -> None:
    """The k-th of n steps has the weight ((k + 1)^g - k^g) / (n + 1)^g, g = exponent + 1; the beginning is k = 0."""
    n, exponent = 9, 6.94
    decays = [power_decay(k, exponent) for k in range(1, n + 1)]
    weights = [math.prod(decays)] + [(1 - decays[k]) * math.prod(decays[k + 1 :]) for k in range(n)]
    g = exponent + 1.0
    assert weights == pytest.approx([((k + 1) ** g - k**g) / (n + 1) ** g for k in range(n + 1)])


def test_losses_of_one_level_count_together() -> None:
    losses = LevelLosses(NoiseLevels())
    losses.update(torch.tensor([0.3, 0.3, 0.3, 50.0]), torch.tensor([0.1, 0.2, 0.6, 2.0]))
    kept = 0.98**3
    expected = [kept + (1 - kept) * 0.3, 0.98 + 0.02 * 2.0]
    assert (1.0 / losses.weights(torch.tensor([0.3, 50.0]))).tolist() == pytest.approx(expected)
    assert sorted(losses.means)[1:-1] == [1.0] * 22


def test_psnr_is_of_the_clipped_estimate() -> None:
    x = torch.zeros(2, 1, 4, 4)
    assert psnr(torch.stack([x[0] + 0.2, x[1] - 7.0]), x).tolist() == pytest.approx([20.0, 20 * math.log10(2)])


def failing(where: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """A compiler that fails when it is called, or whose function fails when it runs, always or for large crops."""

    def compiler(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if where == "at once":
            raise ImportError("no compiler")

        def compiled(x: Tensor, *others: Tensor) -> Tensor:
            if where == "first call" or x.shape[-1] * 2 > PLAN.crop:
                raise RuntimeError("cannot compile this")
            return function(x, *others)

        return compiled

    return compiler


@pytest.mark.parametrize("where", ["at once", "first call", "large crops"])
def test_where_the_compiler_fails_the_steps_are_those_without(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    photos = DevicePhotos.of(photographs(), CPU)
    plain, compiled = Learner(initialised(TINY, 0), CPU), Learner(initialised(TINY, 0), CPU, failing(where))
    for learner in (plain, compiled):
        for step in range(5):
            learner.take_step(*draw(photos, PLAN, learner.levels, step), 1e-3)
    for ours, theirs in zip(compiled.net.parameters(), plain.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    left_out = {"at once": set(), "first call": {(4, 32, 32), (1, 64, 64)}, "large crops": {(1, 64, 64)}}[where]
    assert compiled.compiled.left_out == left_out
    assert "compiled" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rates", "expected"),
    [({16: 100.0, 32: 150.0, 64: 152.0}, 32), ({16: 100.0, 32: 150.0, 64: 190.0}, 64), ({}, 8)],
)
def test_the_batch_is_as_large_as_pays(rates: dict[int, float], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to where twice as many bring less than 5 %, or memory ends."""

    def measured(learner: Learner, photos: DevicePhotos, plan: Plan) -> float:
        if plan.batch not in rates:
            raise MemoryShortageError("out of memory")
        return rates[plan.batch]

    monkeypatch.setattr(train_gpu, "crops_per_second", measured)
    learner = Learner(initialised(TINY, 0), CPU)
    assert train_gpu.batch_that_pays(learner, DevicePhotos.of(photographs(), CPU), PLAN) == expected


def test_what_is_slower_compiled_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(initialised(TINY, 0), CPU, lambda function: function)
    rates = {(False, 0): 10.0, (True, 0): 20.0, (False, 3): 10.0, (True, 3): 9.0}
    monkeypatch.setattr(
        train_gpu,
        "crops_per_second",
        lambda learner, photos, plan, first: rates[learner.compiled.switch((0,)), first],
    )
    train_gpu.compile_what_pays(learner, DevicePhotos.of(photographs(), CPU), PLAN)
    assert learner.compiled.left_out == {(1, 64, 64)}


def tiny_run(out: Path) -> GpuRun:
    return GpuRun(
        learner=Learner(initialised(TINY, 0), CPU),
        photos=DevicePhotos.of(photographs(), CPU),
        pictures=grouped(photographs()),
        plan=replace(PLAN, steps=6),
        out=out,
        config=TINY,
        facts={},
        report_seconds=1e9,
        part_bytes=0,
    )


def test_a_diverged_training_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last checkpoint, at half of the rate; what is not finite is never written."""
    run, rates, step = tiny_run(tmp_path), [], Learner.take_step
    monkeypatch.setattr(train_gpu, "CHECK_STEPS", 1)

    def poisoned(self: Learner, x: Tensor, s: Tensor, eps: Tensor, lr: float) -> None:
        step(self, x, s, eps, lr)
        rates.append(lr)
        if self.step == 3:
            self.net.out.bias.fill_(math.nan)

    monkeypatch.setattr(Learner, "take_step", poisoned)
    run.train(0.0)
    assert [row["step"] for row in run.rows] == [0, 6]
    assert rates == pytest.approx([learning_rate(PLAN.lr / (1 + (k >= 3)), k / 6, k) for k in range(6)])
    prior = load_file(tmp_path / "prior.safetensors")
    assert all(bool(value.isfinite().all()) for value in prior.values())


def test_where_memory_falls_short_the_batch_is_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, step = tiny_run(tmp_path), Learner._gradients

    def short(self: Learner, x: Tensor, *others: Tensor) -> Tensor:
        if len(x) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        return step(self, x, *others)

    monkeypatch.setattr(Learner, "_gradients", short)
    run.train(0.0)
    assert (run.plan.batch, run.learner.step, run.learner.num_crops) == (2, 6, 11)


def test_a_file_is_read_without_the_library(tmp_path: Path) -> None:
    tensors, metadata = load_plain(BUNDLED)
    assert metadata == read_safetensors(BUNDLED)[1]
    expected = load_file(BUNDLED)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], value) for name, value in expected.items())
    (tmp_path / "cut.safetensors").write_bytes(BUNDLED.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="damaged"):
        load_plain(tmp_path / "cut.safetensors")
    with pytest.raises(InputError, match="cannot read"):
        load_plain(tmp_path / "none.safetensors")


# End to end -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a bare machine; one photograph to train on is a copy of one to measure on."""
    place = tmp_path_factory.mktemp("gpu")
    for name in ("training", "kept", "measured"):
        (place / name).mkdir()
    for k in range(3):
        photo(place / "training" / f"{k}.png", (72, 56), seed=k)
    photo(place / "kept" / "k.png", (64, 64), seed=8)
    photo(place / "measured" / "m.png", (48, 40), seed=9)
    (place / "training" / "copy.png").write_bytes((place / "measured" / "m.png").read_bytes())
    (place / "training" / "none.png").write_text("no picture")
    arguments = ["training", "--keep", "kept", "--validate", "measured", "-o", "packed", "--licence", "mine"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "argv", ["pack_gpu.py", *arguments])
        pack_gpu.main()
    return place / "packed"


ABSENT = ("numpy", "safetensors", "msgspec", "typer", "rich", "huggingface_hub", "httpx2", "lpips", "piq", "scipy")
"""What a machine with torch and Pillow alone does not have."""


@pytest.fixture(scope="module")
def absent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that hides those packages."""
    place = tmp_path_factory.mktemp("absent")
    for name in ABSENT:
        (place / f"{name}.py").write_text(f"raise ModuleNotFoundError('{name}')")
    return place


def trained(folder: Path, absent: Path, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    command = ["sh", folder / "benchmarks" / "train_gpu.sh", "--device", "cpu", "--crop", "32", "--batch", "2"]
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(absent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def test_the_folder_holds_what_it_says(packed: Path) -> None:
    with zipfile.ZipFile(packed / "photographs.zip") as file:
        names, facts = file.namelist(), json.loads(file.read("facts.json"))
        parts = [sum(name.startswith(part) for name in names) for part in ("training/", "validation/")]
        kept = file.read("training/00003")
        measured = file.read("validation/00000")
    assert parts == [4, 1]
    assert (facts["photographs"], facts["licence"]) == ("4", "mine")
    assert kept == (packed.parent / "kept" / "k.png").read_bytes()
    assert measured == (packed.parent / "measured" / "m.png").read_bytes()
    assert sum(path.stat().st_size for path in packed.rglob("*")) <= 13e6


def test_training_end_to_end(packed: Path, absent: Path, tmp_path: Path, dmps: Dmps) -> None:
    """Two steps; the file restores, says what it is, and stands in pieces as well."""
    process = trained(packed, absent, "--out", tmp_path / "out", "--steps", "2", "--part-mib", "15")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "large, 9,7" in out
    prior = tmp_path / "out" / "prior.safetensors"
    facts = read_safetensors(prior)[1]
    expected = {"architecture": "natural", "steps": "2", "crops": "4", "licence": "mine", "photographs": "4"}
    assert {name: facts[name] for name in expected} == expected
    assert facts["initial_weights"].startswith("natural.safetensors, ")
    assert float(facts["psnr_15"]) == pytest.approx(float(facts["psnr_15_at_first"]), abs=0.5)
    assert NaturalConfig.from_state(load_file(prior), "prior") == SIZES["large"]
    pieces = sorted((tmp_path / "out").glob("*.step2.*of2"))
    assert b"".join(piece.read_bytes() for piece in pieces) == prior.read_bytes()
    rows = (tmp_path / "out" / "log.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["step", "0", "2"]
    photo(tmp_path / "y.png", (40, 32))
    result = dmps("restore", tmp_path / "y.png", "--task", "denoise", "--model", prior, "--nfe", "2", "-o", "x.png")
    assert result.code == 0, result.err
    shown = dmps("models", "show", prior)
    assert (shown.code, "has_attention" in shown.out) == (0, True), shown.out


def test_a_training_that_is_cut_short_leaves_what_it_has(packed: Path, absent: Path, tmp_path: Path) -> None:
    process = trained(packed, absent, "--out", tmp_path / "out", "--steps", "100000", "--size", "base")
    assert process.stdout is not None
    seen = next((line for line in process.stdout if line.startswith("step 0")), "")
    assert seen, process.communicate()
    assert read_safetensors(tmp_path / "out" / "prior.safetensors")[1]["steps"] == "0"
    process.send_signal(signal.SIGTERM)
    rest, err = process.communicate()
    assert process.returncode == 130, err
    facts = read_safetensors(tmp_path / "out" / "prior.safetensors")[1]
    assert f"step {facts['steps']}, " in rest or facts["steps"] == "0"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["log.csv", "prior.safetensors"]
