"""Levels against the recorded schedule of the reference and the formulas of rectified flow."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmps_cli.levels import CLEAN, SAMPLERS, SPACINGS, ddpm_levels, ddpm_time, flow_label, flow_levels, kept_steps
from tests.conftest import golden, golden_json


def test_ddpm_chain_is_the_recorded_one() -> None:
    reference = golden("trajectories/schedule_linear_1000")["alphas_cumprod"]
    bars = torch.tensor([level.alpha**2 for level in reversed(ddpm_levels(1000)[:-1])], dtype=torch.float64)
    torch.testing.assert_close(bars, reference, rtol=1e-13, atol=0)


@pytest.mark.parametrize("nfe", [5, 20, 100])
def test_respaced_chain_is_the_recorded_one(nfe: int) -> None:
    recorded = golden_json(f"trajectories/noise_32_steps{nfe}")
    assert kept_steps(nfe) == recorded["timestep_map"]
    bars = [level.alpha**2 for level in reversed(ddpm_levels(nfe)[:-1])]
    assert bars == pytest.approx(recorded["alphas_cumprod"], rel=1e-12)


def test_one_step_is_the_noisiest() -> None:
    assert kept_steps(1) == kept_steps(1, "quadratic") == [999]


def test_the_chain_is_ancestral_and_the_flow_an_ode() -> None:
    assert {name: sampler.eta for name, sampler in SAMPLERS.items()} == {"ddpm": 1.0, "flow": 0.0}


def test_unknown_spacing() -> None:
    with pytest.raises(ValueError, match="cubic"):
        kept_steps(6, "cubic")


def test_quadratic_steps() -> None:
    """999 (k / (nfe - 1))^2 by hand; where they crowd, the next free step; all of them at the chain's length."""
    assert kept_steps(4, "quadratic") == [0, 111, 444, 999]
    assert kept_steps(1000, "quadratic") == list(range(1000))
    for nfe in (2, 3, 50, 500, 999):
        steps = kept_steps(nfe, "quadratic")
        assert steps == sorted(set(steps))
        assert (len(steps), steps[0], steps[-1]) == (nfe, 0, 999)


@pytest.mark.parametrize("spacing", SPACINGS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(num_steps=st.integers(2, 1000), data=st.data())
def test_kept_steps_rise_from_the_clean_end_to_the_noisiest(spacing: str, num_steps: int, data: st.DataObject) -> None:
    """Whole numbers; within half a step of the formula, but where quadratic ones crowd."""
    nfe = data.draw(st.integers(2, num_steps))
    steps = kept_steps(nfe, spacing, num_steps)
    assert all(type(step) is int for step in steps)
    assert all(earlier < later for earlier, later in pairwise(steps))
    assert (len(steps), steps[0], steps[-1]) == (nfe, 0, num_steps - 1)
    power = 1 if spacing == "uniform" else 2
    for k, step in enumerate(steps):
        ideal = (num_steps - 1) * (k / (nfe - 1)) ** power
        assert abs(step - ideal) <= 0.5 + 1e-9 or (spacing == "quadratic" and step == steps[k - 1] + 1 > ideal)
    assert kept_steps(1, spacing, num_steps) == [num_steps - 1]


@pytest.mark.parametrize("nfe", [0, -3, 1001])
def test_ddpm_refuses_impossible_counts(nfe: int) -> None:
    with pytest.raises(ValueError, match=str(nfe)):
        ddpm_levels(nfe)


def test_flow_levels_are_those_of_rectified_flow() -> None:
    levels = flow_levels(4)
    shares = [1e-3 + k / 4 * (1 - 1e-3) for k in range(4)]
    assert [level.alpha for level in levels[:-1]] == pytest.approx(shares, rel=1e-15)
    assert [level.sigma for level in levels[:-1]] == pytest.approx([1 - s for s in shares], rel=1e-15)
    assert [level.time for level in levels[:-1]] == pytest.approx([999 * s for s in shares], rel=1e-15)
    assert levels[-1] == CLEAN


@pytest.mark.parametrize("levels", [ddpm_levels(37), flow_levels(37)])
def test_noise_falls_to_nothing(levels: list) -> None:
    ratios = [level.sigma / level.alpha for level in levels]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[-1] == 0


def test_ddpm_time_inverts_the_chain() -> None:
    for level in ddpm_levels(1000)[:-1]:
        assert ddpm_time(level.sigma / level.alpha) == pytest.approx(level.time, abs=1e-9)


def test_ddpm_time_interpolates_the_log_ratio() -> None:
    near, far = ddpm_levels(1000)[500], ddpm_levels(1000)[499]
    middle = math.sqrt(near.sigma / near.alpha * far.sigma / far.alpha)
    assert ddpm_time(middle) == pytest.approx((near.time + far.time) / 2, abs=1e-9)
    assert ddpm_time(1e6) == 999
    assert ddpm_time(1e-6) == 0


def test_flow_label_inverts_the_ladder() -> None:
    for level in flow_levels(50)[:-1]:
        assert flow_label(level.sigma / level.alpha) == pytest.approx(level.time, rel=1e-12)
