"""Whole DMPS runs against those recorded with the authors' code and with the paper's algorithm."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from dmps_cli.levels import alpha_bars
from dmps_cli.methods.table import METHODS
from dmps_cli.nets.adm import ADM, ADMConfig
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import DDPMPrior
from dmps_cli.sampling import reverse_step, sample
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve
from tests.conftest import GOLDEN, golden, golden_json, rel, where
from tests.rule import rule_weights

NAMES = sorted(
    path.stem for path in (GOLDEN / "trajectories").glob("*_32_steps*.json") if not path.stem.startswith("noise")
)
TASK_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "sr_bicubic_x4": ("sr4", {"svd_cutoff": 0.03}),
    "deblur_uniform9_true": ("deblur", {"svd_cutoff": 0.03}),
    "colorization": ("colorize", {"weights": ".3333,.3334,.3333"}),
    "denoise": ("denoise", {}),
}


@lru_cache
def operator(name: str) -> LinearOperator:
    task, options = TASK_OPTIONS[name]
    return build(task, resolve(task, OperatorOptions(**options)), (3, 32, 32), dtype=torch.float32, device=where())


@lru_cache
def prior(net: str) -> DDPMPrior:
    if net == "analytic":

        def analytic(x: Tensor, t: Tensor) -> Tensor:
            """eps = sqrt(1 - abar_t) x, v = 0.5."""
            return torch.cat([(1 - alpha_bars()[int(t)]) ** 0.5 * x, torch.full_like(x, 0.5)], 1)

        return DDPMPrior(analytic, learned_range=True, clip_denoised=True)
    network = ADM(ADMConfig.from_reference(golden_json(f"nets/{net}")["config"], net))
    network.load_state_dict(rule_weights(network))
    return DDPMPrior(network.eval(), learned_range=True, clip_denoised=True)


class Recorded:
    """The recorded z of each step, in the loop's order."""

    generators = ()

    def __init__(self, z: Tensor) -> None:
        self.z: Iterator[Tensor] = iter(z)

    def like(self, x: Tensor) -> Tensor:
        return next(self.z).to(x)


class Watched:
    """A denoiser whose samples are kept."""

    draws_on_ode = False

    def __init__(self, inner: Any) -> None:
        self.inner, self.samples = inner, []

    def step(self, *arguments: Any) -> Tensor:
        self.samples.append(self.inner.step(*arguments))
        return self.samples[-1]


@pytest.mark.parametrize("name", NAMES)
def test_trajectory(name: str) -> None:
    facts, data = golden_json(f"trajectories/{name}"), golden(f"trajectories/{name}")
    noise = golden(f"trajectories/{facts['noise_file']}")
    op, steps = operator(facts["operator"]), facts["steps"]
    score_at = {"official": "sample", "paper": "x_t"}[facts["kind"]]
    knobs = {"weight": facts["scale"], "score_at": score_at, "cap": None}
    y = data["y"].reshape(-1, *op.out_shape)
    watched = Watched(
        METHODS[f"dmps ({score_at})"].build(prior(facts["net"]), Measurement(y, op, facts["noise_std"]), 1.0, knobs)
    )
    levels = prior(facts["net"]).levels("ddpm", steps)
    x_T = noise["x_T"].reshape(1, 3, 32, 32)
    final = sample(watched, levels, x_T, eta=1.0, noise=Recorded(noise["z"]))  # type: ignore[arg-type]
    reached = {
        "x_after_1": watched.samples[0],
        "x_after_2": watched.samples[1],
        "x_mid": watched.samples[steps // 2 - 1],
        "x_final": final,
    }
    for key, value in reached.items():
        tolerance = max(1e-4, 10 * facts["float32_vs_float64_rel"][key])
        assert rel(value, data[key]) < tolerance, key


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(("steps20", "steps20_paper"))])
def test_first_step(name: str) -> None:
    """The denoised estimate, the sample before the likelihood step, and the score, of the first step at T = 20."""
    facts, data = golden_json(f"trajectories/{name}"), golden(f"trajectories/{name}")
    noise, net = golden(f"trajectories/{facts['noise_file']}"), prior(facts["net"])
    cur, nxt = next(pairwise(net.levels("ddpm", 20)))
    x_T = noise["x_T"].reshape(1, 3, 32, 32)
    x0, std = net.predict(x_T, cur, nxt)
    # x0 = (x_T - sigma eps) / alpha with alpha = 0.006: float32 is compared before that division
    assert cur.alpha * (x0 - data["step1_pred_xstart"]).abs().max() < 1e-6 * x_T.abs().max()
    drawn = reverse_step(x_T, x0, cur, nxt, 1.0, noise["z"][0], std)
    assert rel(drawn, data["step1_before_likelihood"]) < 1e-4
    if "step1_score" in data:
        op = operator(facts["operator"])
        y = data["y"].reshape(-1, *op.out_shape)
        ratio = (cur.sigma / cur.alpha) ** 2
        score = op.correction(y)(x_T / cur.alpha, facts["noise_std"] ** 2, ratio) / cur.alpha
        assert rel(score, data["step1_score"]) < 1e-4
