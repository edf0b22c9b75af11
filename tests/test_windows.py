"""Windows of one state against the network on the whole picture; a margin against the operator inside."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dmps_cli import fields
from dmps_cli.levels import Level
from dmps_cli.operators.inside import Inside
from dmps_cli.operators.separable import bicubic_decimation
from dmps_cli.priors import DDPMPrior, DenoiserPrior
from dmps_cli.windows import WindowedPrior, blend_weights, for_large, strips_bytes, window_starts
from tests.conftest import randn, where

CUR, NXT = Level(0.8, 0.6, 300.0), Level(0.9, math.sqrt(1 - 0.81), 200.0)


@pytest.mark.parametrize("side", [64, 65, 100, 112, 113, 200, 640])
def test_weights_add_up_to_one_everywhere(side: int) -> None:
    starts = window_starts(side, 64)
    assert (starts[0], starts[-1] + 64) == (0, side)
    assert all(later - earlier <= 48 for earlier, later in pairwise(starts))
    total = torch.zeros(side, dtype=torch.float64)
    for start, weight in blend_weights(side, 64).items():
        total[start : start + 64] += weight
        if start > 0:
            assert bool((weight[:4] == 0.0).all())
        if start + 64 < side:
            assert bool((weight[-4:] == 0.0).all())
    torch.testing.assert_close(total, torch.ones(side, dtype=torch.float64), rtol=0, atol=1e-15)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data(), window=st.integers(2, 200), overlap_share=st.integers(2, 8))
def test_weights_of_any_windows_add_up_to_one(data: st.DataObject, window: int, overlap_share: int) -> None:
    """Windows are the fewest that overlap as they should, in rising order; a far neighbour has no weight."""
    side = data.draw(st.integers(window, 8 * window))
    starts, overlap = window_starts(side, window, overlap_share), window // overlap_share
    assert (starts[0], starts[-1] + window) == (0, side)
    assert all(0 < later - earlier <= window - overlap for earlier, later in pairwise(starts))
    assert len(starts) == 1 or (len(starts) - 2) * (window - overlap) + window < side
    total = torch.zeros(side, dtype=torch.float64)
    for start, weight in blend_weights(side, window, overlap_share).items():
        assert bool((weight >= 0.0).all())
        total[start : start + window] += weight
    torch.testing.assert_close(total, torch.ones(side, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("size", "batch"), [((64, 64), 1), ((100, 64), 3), ((112, 150), 1), ((130, 200), 4)])
def test_windows_are_the_whole_picture_for_a_network_that_sees_little(size: tuple[int, int], batch: int) -> None:
    """Three 3 x 3 convolutions see 3 px around; a window's outermost 4 px do not count."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1), nn.Tanh()]
    net = nn.Sequential(*layers, nn.Conv2d(8, 6, 3, padding=1)).double()
    whole = DDPMPrior(lambda x, t: net(x), learned_range=True, clip_denoised=False)
    x = randn(2, 3, *size)
    expected_x0, expected_std = whole.predict(x, CUR, NXT)
    x0, std = WindowedPrior(whole, 64, batch=batch).predict(x, CUR, NXT)
    assert std is not None
    assert expected_std is not None
    torch.testing.assert_close(x0, expected_x0, rtol=0, atol=1e-12)
    torch.testing.assert_close(std, expected_std, rtol=0, atol=1e-12)


def test_seams_are_no_edges() -> None:
    """A network that sees its whole window (here: subtracts half its mean) gives no larger steps at borders."""

    def denoise(z: Tensor, s: float) -> Tensor:
        return z - 0.5 * z.mean((2, 3), keepdim=True)

    side, window = 640, 64
    ramp = torch.linspace(-1.0, 1.0, side, dtype=torch.float64).expand(1, 1, side, side)
    x = ramp + 0.05 * randn(1, 1, side, side)
    x0, _ = WindowedPrior(DenoiserPrior(denoise, 1), window).predict(0.8 * x, Level(0.8, 0.6, 0.0), NXT)
    step = (x0[..., 1:] - x0[..., :-1]).abs().mean((0, 1, 2))  # per column, over all rows
    starts = window_starts(side, window)
    borders = {edge for start in starts for edge in (start, start + window) if 0 < edge < side}
    at_borders = step[[edge - 1 for edge in sorted(borders)]]
    elsewhere = step[[k for k in range(side - 1) if k + 1 not in borders]]
    assert float(at_borders.mean()) == pytest.approx(float(elsewhere.mean()), rel=0.02)
    assert float(at_borders.max()) < float(elsewhere.mean()) + 4 * float(elsewhere.std())


def test_too_small_a_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="smaller than 64"):
        WindowedPrior(DenoiserPrior(lambda z, s: z), 64).predict(randn(1, 3, 64, 63), CUR, NXT)


def measured_prior(multiple: int = 8, least_size: int = 16) -> DenoiserPrior:
    """Takes sides of whole multiples, 7 bytes per pixel."""
    prior = DenoiserPrior(lambda z, s: z)
    prior.bytes_per_pixel, prior.multiple, prior.least_size = 7.0, multiple, least_size
    return prior


def test_a_side_of_a_window_or_more_is_taken_as_it_is() -> None:
    windowed = WindowedPrior(measured_prior(), 60, is_only_size=False)
    assert windowed.fitting(9, 41) == (16, 48)
    assert windowed.fitting(60, 61) == (60, 61)
    assert windowed.fitting(59, 301) == (64, 301)
    assert WindowedPrior(measured_prior(), 60).fitting(9, 61) == (60, 61)


def test_memory_is_that_of_a_window_and_of_the_state() -> None:
    windowed = WindowedPrior(measured_prior(), 64)
    assert windowed.peak_bytes(100, 50) == 7.0 * 64 * 50 + 150.0 * 100 * 50
    assert WindowedPrior(DenoiserPrior(lambda z, s: z), 64).peak_bytes(100, 50) is None


def test_a_large_picture_takes_wide_windows_of_whole_multiples() -> None:
    """The largest up to 1024 px that share at least an eighth of their side; a prior with windows keeps its own."""
    wide = for_large(measured_prior(multiple=48), batch=3)
    assert isinstance(wide, WindowedPrior)
    assert (wide.window, wide.overlap_share, wide.batch, wide.least_size) == (1008, 8, 3, 16)
    assert for_large(wide) is wide


def test_memory_of_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window, 1 GiB, eight measurements, and state and prediction where they are no files; float32."""
    windowed, shapes = WindowedPrior(measured_prior(), 64), ((3, 200, 100), (3, 50, 25))
    state, fixed = 4.0 * 3 * 200 * 100, (7.0 + 150.0) * 64 * 64 + 2.0**30 + 8 * 4.0 * 3 * 50 * 25
    monkeypatch.setattr(fields, "FILE_BYTES", state)
    assert strips_bytes(windowed, *shapes) == fixed + 2 * state
    monkeypatch.setattr(fields, "FILE_BYTES", state - 1)
    assert strips_bytes(windowed, *shapes) == fixed
    assert strips_bytes(measured_prior(), *shapes) == fixed - (7.0 + 150.0) * 64 * 64 + 7.0 * 16 * 16
    assert strips_bytes(DenoiserPrior(lambda z, s: z), *shapes) is None


def test_a_margin_changes_nothing_inside() -> None:
    """Against the dense matrix: zeros at columns of the margin."""
    inner = bicubic_decimation((2, 8, 12), 4, dtype=torch.float64, device=where())
    op = Inside(inner, (2, 11, 12))
    size = 2 * 11 * 12
    dense = op.A(torch.eye(size, dtype=torch.float64).reshape(size, 2, 11, 12)).flatten(1).T
    keep = torch.zeros(2, 11, 12, dtype=torch.bool)
    keep[:, 1:9] = True  # 3 rows of margin: 1 above, 2 below
    basis = torch.eye(192, dtype=torch.float64).reshape(192, 2, 8, 12)
    expected = torch.zeros_like(dense)
    expected[:, keep.flatten()] = inner.A(basis).flatten(1).T
    torch.testing.assert_close(dense, expected, rtol=0, atol=1e-15)
    y, x = randn(2, *op.out_shape), randn(2, *op.in_shape, seed=1)
    torch.testing.assert_close(op.At(y).flatten(1), y.flatten(1) @ dense, rtol=0, atol=1e-12)
    torch.testing.assert_close(op.pinv(y).flatten(1), y.flatten(1) @ torch.linalg.pinv(dense).T, rtol=0, atol=1e-10)
    inverse = torch.linalg.inv(0.01 * torch.eye(len(dense), dtype=torch.float64) + 0.5 * dense @ dense.T)
    corrected = (y.flatten(1) - x.flatten(1) @ dense.T) @ inverse @ dense
    torch.testing.assert_close(op.correction(y)(x, 0.01, 0.5).flatten(1), corrected, rtol=0, atol=1e-12)
    assert op.norm == pytest.approx(float(torch.linalg.matrix_norm(dense, 2)), rel=1e-12)
    torch.testing.assert_close(op.gram(y).flatten(1), y.flatten(1) @ dense @ dense.T, rtol=0, atol=1e-12)
