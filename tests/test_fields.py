"""Large pictures: methods and operators on fields against the same on tensors; files; no more than strips at once."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dmps_cli import fields, pipeline
from dmps_cli.errors import MemoryShortageError
from dmps_cli.levels import SAMPLERS
from dmps_cli.methods.choice import build_posterior, resolve_sampling
from dmps_cli.operators import banded
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.convolution import convolution
from dmps_cli.operators.grey import OfGreyValue
from dmps_cli.operators.kernels import Kernel
from dmps_cli.operators.measurement import Measurement
from dmps_cli.operators.pointwise import ChannelMean, Identity, Mask, random_keep
from dmps_cli.priors import DenoiserPrior
from dmps_cli.sampling import Noise, sample
from dmps_cli.windows import WindowedPrior
from tests.conftest import randn

CPU = torch.device("cpu")
SHAPE = (3, 152, 72)
HOW = {"dtype": torch.float64, "device": "cpu"}
OPERATORS = {
    "denoise": lambda: Identity(SHAPE, **HOW),
    "inpaint": lambda: Mask(SHAPE, random_keep(SHAPE[1:], 0.5, 0), **HOW),
    "colorize": lambda: ChannelMean(SHAPE, **HOW),
    "sr4": lambda: banded.bicubic(SHAPE, 4, **HOW),
    "sr2-grey": lambda: OfGreyValue(banded.average((1, *SHAPE[1:]), 2, **HOW), 3),
    "blur": lambda: convolution(
        SHAPE, Kernel(torch.rand(3, 5, generator=torch.Generator().manual_seed(0))), "reflect", **HOW
    ),
}


class SameNoise(Noise):
    """The noise of fields, for tensors too."""

    def like(self, x: Tensor) -> Tensor:
        return fields.whole(super().like(x if isinstance(x, fields.Field) or x.ndim != 4 else fields.field(x, CPU)))


def denoise(z: Tensor, s: float) -> Tensor:
    """Of what a pixel's surroundings say, a little."""
    return z / (1.0 + s**2) + 0.1 * (z.roll(1, -1) - z)


def drawn(op: LinearOperator, *, method: str, score_at: str | None, is_field: bool) -> Tensor:
    prior = WindowedPrior(DenoiserPrior(denoise, 3), 64, is_only_size=False)
    measurement = Measurement(op.A(randn(1, *SHAPE)), op.by_strips() if is_field else op, 0.1)
    knobs = {} if score_at is None else {"score_at": score_at}
    sampling = resolve_sampling(method=method, nfe=4, knobs=knobs)
    posterior = build_posterior(sampling, prior, measurement)
    levels = prior.levels("ddpm", 4, "quadratic")
    state = torch.zeros(1, *SHAPE, dtype=torch.float64)
    z = SameNoise(0, Noise.START, [(0, 0)]).like(state)
    z = fields.field(z, CPU) if is_field else z
    noise = Noise(0, Noise.STEP, [(0, 0)]) if is_field else SameNoise(0, Noise.STEP, [(0, 0)])

    def held(x: Tensor) -> Tensor:
        return fields.store(x, state) if is_field else x

    with torch.no_grad():
        start = held(posterior.start(z, levels[0]))
        return fields.whole(sample(posterior, levels, start, eta=SAMPLERS["ddpm"].eta, noise=noise, held=held))


METHODS = [("dmps", "x_t"), ("dmps", "sample"), ("dmps", "x0"), ("ddrm", None), ("ddnm", None), ("diffpir", None)]


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(("method", "score_at"), METHODS)
def test_fields_are_the_tensors(name: str, method: str, score_at: str | None) -> None:
    op = OPERATORS[name]()
    if method in ("ddrm", "ddnm") and op.modes is None:
        return
    tensor, field = (drawn(op, method=method, score_at=score_at, is_field=flag) for flag in (False, True))
    torch.testing.assert_close(field, tensor, rtol=0, atol=1e-9)


def test_rows_are_computed_once_and_when_asked() -> None:
    asked: list[tuple[int, int]] = []

    def rows(top: int, bottom: int) -> Tensor:
        asked.append((top, bottom))
        return torch.full((1, 1, bottom - top, 4), float(top))

    x = fields.Field(rows, (1, 1, 130, 4), torch.float32, CPU)
    y = (2.0 * x + 1.0).clamp_min(0.0) * x
    assert asked == []
    into = torch.empty(1, 1, 130, 4)
    stored = fields.store(y, into)
    assert asked == [(0, 64), (64, 128), (128, 130)]
    assert into[0, 0, 100, 0] == (2 * 64 + 1) * 64
    assert bool(fields.all_finite(stored))
    into[0, 0, 129, 3] = float("nan")
    assert not bool(fields.all_finite(fields.field(into, CPU)))


def test_what_lies_in_a_file_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "FILE_BYTES", 100)
    mapped = fields.buffer((1, 3, 10, 10))
    assert float(mapped.abs().max()) == 0.0
    values = torch.randn(1, 3, 10, 10)
    fields.store(fields.field(values, CPU), mapped)
    torch.testing.assert_close(mapped, values, rtol=0, atol=0)


def noise_rows(ends: Sequence[tuple[int, int]]) -> Tensor:
    x = fields.field(torch.zeros(1, 2, 150, 16), CPU)
    drawn = Noise(3, Noise.STEP, [(7, 0)]).like(x)
    return torch.cat([fields.rows(drawn, *each) for each in ends], dim=-2)


def test_noise_of_a_field_is_the_same_in_any_strips_and_white() -> None:
    whole = noise_rows([(0, 150)])
    torch.testing.assert_close(noise_rows([(0, 1), (1, 70), (70, 100), (100, 150)]), whole, rtol=0, atol=0)
    assert abs(float(whole.mean())) < 0.06  # 4 standard deviations of the mean of 4800
    assert abs(float(whole.std()) - 1.0) < 0.05
    assert abs(float((whole[..., :64, :] * whole[..., 64:128, :]).mean())) < 0.1


def test_a_large_picture_is_restored_by_strips_wherever_its_state_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory or in a file: the same bits. Near the picture that the same prior makes of it in one piece."""
    op = Identity((3, 150, 130), dtype=torch.float32, device="cpu")
    truth = torch.linspace(-0.8, 0.8, 130).expand(1, 3, 150, 130)
    y = pipeline.degrade(truth, op, 0.2, seed=0, keys=[(0, 0)])
    prior, sampling = DenoiserPrior(lambda z, s: z / (1.0 + s**2), 3), resolve_sampling(nfe=15)

    def restored() -> Tensor:
        return pipeline.restore(Measurement(y, op, 0.2), prior, sampling, seed=0, keys=[(0, 0)])

    whole = restored()
    monkeypatch.setattr(pipeline, "LARGE_PIXELS", 1000)
    in_memory = restored()
    monkeypatch.setattr(fields, "FILE_BYTES", 100)
    torch.testing.assert_close(restored(), in_memory, rtol=0, atol=0)
    errors = [float((x - truth).square().mean().sqrt()) for x in (whole, in_memory)]
    assert errors[1] == pytest.approx(errors[0], rel=0.05)


def test_a_disk_without_room_is_said_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stub: a disk without room is not to be had."""

    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fields, "FILE_BYTES", 100)
    monkeypatch.setattr(fields.os, "posix_fallocate", full)
    with pytest.raises(MemoryShortageError, match=r"No space left on device.*TMPDIR"):
        fields.buffer((1, 3, 10, 10))
