"""The baselines against what is known without our code: closed forms of Gaussian priors, SPEC's formulas on dense SVDs.

Tests run over METHODS where a property belongs to all of them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dmps_cli import device
from dmps_cli.errors import MemoryShortageError, UsageError
from dmps_cli.levels import SAMPLERS, Level, ddpm_levels, flow_levels
from dmps_cli.methods.choice import Sampling, build_posterior, resolve_sampling, samplers_of
from dmps_cli.methods.defaults import DEFAULTS, PRESETS
from dmps_cli.methods.knobs import KNOBS
from dmps_cli.methods.options import SamplingOptions
from dmps_cli.methods.posterior import ModewisePosterior, OwnStep, Posterior, pulled_back
from dmps_cli.methods.table import METHODS
from dmps_cli.nets.adm import ADM, ADMConfig
from dmps_cli.nets.ncsnpp import NCSNpp, NCSNppConfig
from dmps_cli.operators.base import PINV_RCOND, LinearOperator
from dmps_cli.operators.inside import Inside
from dmps_cli.operators.measurement import Measurement
from dmps_cli.pipeline import restore
from dmps_cli.priors import DDPMPrior, DenoiserPrior, FlowPrior, GaussianPrior, Prior
from dmps_cli.sampling import Noise, reverse_step, sample
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.rows import TASKS
from dmps_cli.tasks.table import build, resolve
from dmps_cli.weights.loading import load_prior
from dmps_cli.windows import WindowedPrior
from tests.conftest import golden_json, randn, same, where
from tests.methods.test_dmps import SHAPE, Dense, carried_moments, eye, matrix
from tests.rule import rule_weights
from tests.shell import Dmps, photo

N, M = math.prod(SHAPE), 5
SIGMA_Y = 0.05
BOTH = pytest.mark.parametrize("sampler", SAMPLERS)
LEVELS = {"ddpm": [*pairwise(ddpm_levels(8))], "flow": [*pairwise(flow_levels(8))]}
EVERY = [pair for pairs in LEVELS.values() for pair in pairs]
RUNS = [*DEFAULTS]
BAYES = {"pgdm": {"guidance": "bayes"}, "ot-ode": {"gamma": "1"}}  # as Bayes' rule weighs the guidance
WITHOUT_MODES = [name for name, row in METHODS.items() if not row.needs_modes]


def method(
    name: str,
    prior: Prior,
    op: LinearOperator,
    y: Tensor,
    sigma_y: float = SIGMA_Y,
    sampler: str = "ddpm",
    **knobs: float | str,
) -> Posterior:
    """The method by its row; on the levels that it has, where it does not have those (the formulas do not ask)."""
    sampler = sampler if sampler in samplers_of(name) else samplers_of(name)[0]
    return build_posterior(
        resolve_sampling(method=name, sampler=sampler, nfe=8, knobs=knobs), prior, Measurement(y, op, sigma_y)
    )


def unit() -> GaussianPrior:
    return GaussianPrior(mean=torch.zeros(*SHAPE, dtype=torch.float64), covariance=eye(N))


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * max(1.0, float(expected.abs().max())))


# Gaussian priors -----------------------------------------------------------------------------------------------------


def conditional_mean(A: Tensor, y: Tensor, x_t: Tensor, sigma_y: float, level: Level) -> Tensor:
    """E[x0 | x_t, y] for x0 ~ N(0, I): both are measurements of x0, so precisions add up."""
    precision = (1.0 + level.alpha**2 / level.sigma**2) * eye(N) + A.T @ A / sigma_y**2
    evidence = level.alpha / level.sigma**2 * x_t.flatten(1) + y @ A / sigma_y**2
    return torch.linalg.solve(precision, evidence.T).T.reshape(x_t.shape)


@pytest.mark.parametrize("name", ["pgdm", "ot-ode", "dmps-tweedie"])
@pytest.mark.parametrize("level", EVERY)
def test_guidance_is_exact_for_a_standard_normal_prior(name: str, level: tuple[Level, Level]) -> None:
    """dmps-tweedie too: what it drops is the Jacobian alpha / (alpha^2 + sigma^2), and here r^2 puts it back."""
    y, x_t = randn(2, M, seed=1), randn(2, *SHAPE, seed=2)
    x0, _ = method(name, unit(), Dense(matrix()), y, 0.3, **BAYES.get(name, {})).predict(x_t, *level)
    close(x0, conditional_mean(matrix(), y, x_t, 0.3, level[0]))


@pytest.mark.parametrize("name", ["pgdm", "dmps-tweedie"])
@BOTH
def test_sampler_converges_to_the_posterior(name: str, sampler: str) -> None:
    """Mean and covariance of p(x0 | y), the error halving with the step."""
    A, y = matrix(), randn(1, M, seed=1)
    covariance = torch.linalg.inv(eye(N) + A.T @ A / 0.3**2)
    mean = covariance @ A.T @ y[0] / 0.3**2
    errors = []
    for nfe in (100, 200) if sampler == "flow" else (250, 500):
        denoiser = method(name, unit(), Dense(A), y, 0.3, sampler, **BAYES.get(name, {}))
        found = carried_moments(denoiser, unit().levels(sampler, nfe), SAMPLERS[sampler].eta)
        errors.append(float((found[0] - mean).norm() + (found[1] - covariance).norm()))
    assert errors[-1] < 0.05 * float(mean.norm() + covariance.norm())
    assert 1.6 < errors[0] / errors[1] < 2.6


@pytest.mark.parametrize("sampler_level", [pair[0] for pair in LEVELS["flow"]])
def test_gamma_weighs_the_guidance(sampler_level: Level) -> None:
    y, x_t = randn(2, M, seed=1), randn(2, *SHAPE, seed=2)
    s = sampler_level.alpha
    prior_mean = unit().predict(x_t, sampler_level, sampler_level)[0]
    shifts = [
        method("ot-ode", unit(), Dense(matrix()), y, gamma=gamma).predict(x_t, sampler_level, sampler_level)[0]
        - prior_mean
        for gamma in ("1", "sqrt")
    ]
    close(shifts[1], shifts[0] * math.sqrt(s / (s**2 + (1 - s) ** 2)))


def test_ot_ode_starts_from_the_measurement() -> None:
    """0.2 A^T (sigma_y^2 I + A A^T)^-1 y + 0.8 eps at s = 0.2, or 0.2 A^T y + 0.8 eps; then equal steps of s."""
    A, y, z = matrix(), randn(2, M, seed=1), randn(2, *SHAPE, seed=2)
    levels = unit().levels("flow", 4, "uniform", METHODS["ot-ode"].start)
    assert [level.alpha for level in levels] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], abs=1e-15)
    assert [level.sigma for level in levels] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0], abs=1e-15)
    assert [level.time for level in levels[:-1]] == pytest.approx([999 * level.alpha for level in levels[:-1]])
    inverse = (y @ torch.linalg.inv(0.01 * eye(M) + A @ A.T) @ A).reshape(z.shape)
    for name, x_init in (("inverse", inverse), ("adjoint", (y @ A).reshape(z.shape))):
        start = method("ot-ode", unit(), Dense(A), y, 0.1, x_init=name).start(z, levels[0])
        close(start, 0.2 * x_init + 0.8 * z)


def test_other_methods_start_in_noise() -> None:
    z, level = randn(2, *SHAPE, seed=2), ddpm_levels(8)[0]
    for name in ("dmps", "dmps-tweedie", "dps", "pgdm", "diffpir"):
        assert torch.equal(method(name, unit(), Dense(matrix()), randn(2, M)).start(z, level), z)


# Back through the network --------------------------------------------------------------------------------------------


def network(x: Tensor, t: Tensor) -> Tensor:
    """eps and v of a prior that is not linear and mixes pixels. x: (B, 1, 2, 4)."""
    flat = torch.tanh(x.flatten(1) @ randn(N, 2 * N, seed=8) / 2 + 0.001 * t[:, None])
    return flat.reshape(-1, 2, *SHAPE[1:])


def nonlinear(*, clips: bool = True) -> DDPMPrior:
    return DDPMPrior(network, learned_range=True, clip_denoised=clips, channels=1)


def differences(function: Callable[[Tensor], Tensor], x: Tensor, h: float = 1e-5) -> Tensor:
    """Central differences of a function with one value per image. x: (B, *SHAPE)."""
    columns = []
    for k in range(N):
        step = torch.zeros(N, dtype=torch.float64)
        step[k] = h
        columns.append((function(x + step.reshape(SHAPE)) - function(x - step.reshape(SHAPE))) / (2 * h))
    return torch.stack(columns, 1).reshape(x.shape)


def residual_norm(prior: Prior, op: Dense, y: Tensor, pair: tuple[Level, Level]) -> Callable[[Tensor], Tensor]:
    return lambda x: (y - op.A(prior.predict(x, *pair)[0])).norm(dim=1)


@pytest.mark.parametrize("pair", LEVELS["ddpm"])
def test_dps_descends_the_norm_after_an_ancestral_step(pair: tuple[Level, Level]) -> None:
    """x' - zeta grad_{x_t} ||y - A x0||, the norm per image, by finite differences; learned variance, clipped x0."""
    prior, op, y, x_t, z = nonlinear(), Dense(matrix()), randn(2, M), randn(2, *SHAPE, seed=2), randn(2, *SHAPE, seed=5)
    x0, std = prior.predict(x_t, *pair)
    expected = reverse_step(x_t, x0, *pair, 1.0, z, std) - 0.4 * differences(residual_norm(prior, op, y, pair), x_t)
    predicted, learned = method("dps", prior, op, y, zeta=0.4).predict(x_t, *pair)
    close(reverse_step(x_t, predicted, *pair, 1.0, z, learned), expected, 1e-7)


@pytest.mark.parametrize("pair", LEVELS["flow"])
def test_dps_descends_the_norm_along_the_flow(pair: tuple[Level, Level]) -> None:
    """x - v dt - zeta (b / a) dt grad_{x_t} ||y - A x0||."""
    prior, op, y, x_t = (
        DenoiserPrior(lambda u, s: torch.tanh(u.flip(3))),
        Dense(matrix()),
        randn(2, M),
        randn(2, *SHAPE),
    )
    x0, _ = prior.predict(x_t, *pair)
    cur, nxt = pair
    dt = cur.sigma - nxt.sigma
    moved = x_t - ((x_t - cur.alpha * x0) / cur.sigma - x0) * dt
    gradient = differences(residual_norm(prior, op, y, pair), x_t, 1e-5 * cur.alpha)
    predicted, _ = method("dps", prior, op, y, sampler="flow", zeta=0.4).predict(x_t, *pair)
    step = reverse_step(x_t, predicted, cur, nxt, 0.0, None)
    close(step, moved - 0.4 * cur.sigma / cur.alpha * dt * gradient, 1e-6)


def test_the_tests_clip() -> None:
    """Some pixels of the finite differences above are clipped, others are not."""
    x_t, (cur, nxt) = randn(2, *SHAPE, seed=2), LEVELS["ddpm"][4]
    x0 = nonlinear(clips=False).predict(x_t, cur, nxt)[0]
    assert 0 < int((x0.abs() > 1).sum()) < x0.numel()


@pytest.mark.parametrize("knobs", [{}, {"zeta": 0.4}])
def test_dps_without_a_residual_stays(knobs: dict[str, float]) -> None:
    """The norm has no gradient at 0: nothing to correct, and no NaN."""
    op, x_t, (cur, nxt) = Dense(matrix()), randn(2, *SHAPE, seed=2), LEVELS["ddpm"][4]
    x0, _ = unit().predict(x_t, cur, nxt)
    assert torch.equal(method("dps", unit(), op, op.A(x0), **knobs).predict(x_t, cur, nxt)[0], x0)


@pytest.mark.parametrize("pair", [LEVELS["ddpm"][4], LEVELS["flow"][4]])
def test_pgdm_pulls_back_its_direction(pair: tuple[Level, Level]) -> None:
    """J^T v by finite differences of <x0(x_t), v>, v = A^T (sigma_y^2 I + r^2 A A^T)^-1 (y - A x0) held fixed."""
    prior, A, y, x_t, cur = nonlinear(), matrix(), randn(2, M), randn(2, *SHAPE, seed=2), pair[0]
    x0, _ = prior.predict(x_t, *pair)
    r2 = cur.sigma**2 / (cur.alpha**2 + cur.sigma**2)
    v = (y - x0.flatten(1) @ A.T) @ torch.linalg.inv(0.09 * eye(M) + r2 * A @ A.T) @ A
    gradient = differences(lambda x: (prior.predict(x, *pair)[0].flatten(1) * v).sum(1), x_t)
    predicted, _ = method("pgdm", prior, Dense(A), y, 0.3, weight=0.7, guidance="bayes").predict(x_t, *pair)
    close(predicted, x0 + 0.7 * cur.sigma**2 / cur.alpha * gradient, 1e-6)


class Linear:
    """A Gaussian prior with every matrix written out: x0(x_t) = mean + J (x_t - alpha mean), J its Jacobian."""

    def __init__(self, pair: tuple[Level, Level]) -> None:
        root, self.mean = randn(N, N, seed=21), randn(N, seed=22)
        self.covariance = root @ root.T / N
        self.prior = GaussianPrior(mean=self.mean.reshape(SHAPE), covariance=self.covariance)
        self.cur, self.nxt = pair
        marginal = self.cur.alpha**2 * self.covariance + self.cur.sigma**2 * eye(N)
        self.J = self.cur.alpha * self.covariance @ torch.linalg.inv(marginal)

    def x0(self, x_t: Tensor) -> Tensor:
        return self.mean + (x_t.flatten(1) - self.cur.alpha * self.mean) @ self.J.T

    def ddim(self, x_t: Tensor, eta: float, z: Tensor) -> Tensor:
        """Song et al. 2021 (DDIM), eq. (12), with the prior's own x0 and eps: what the guidance is added to."""
        (a, b, _), (a_next, b_next, _) = self.cur, self.nxt
        x0, std = self.x0(x_t), eta * b_next / b * math.sqrt(1.0 - (a * b_next / (a_next * b)) ** 2) * b
        eps = (x_t.flatten(1) - a * x0) / b
        return a_next * x0 + math.sqrt(b_next**2 - std**2) * eps + std * z.flatten(1)


GUIDED = [
    pytest.param(*case, id=f"{case[0]} {number}")
    for case, number in (((sampler, pair), k) for sampler in LEVELS for k, pair in enumerate(LEVELS[sampler]))
]


def guided(name: str, sampler: str, linear: Linear, y: Tensor, sigma_y: float, x_t: Tensor, **knobs: float) -> Tensor:
    """What a method's step adds to the DDIM step with the prior's own eps, (B, N)."""
    z, eta = randn(*x_t.shape, seed=5), SAMPLERS[sampler].eta
    stepper = method(name, linear.prior, Dense(matrix()), y, sigma_y, sampler, **knobs)
    return stepper.step(x_t, linear.cur, linear.nxt, eta, lambda _: z).flatten(1) - linear.ddim(x_t, eta, z)


@pytest.mark.parametrize(("sampler", "pair"), GUIDED)
def test_pgdm_moves_the_sample_as_published(sampler: str, pair: tuple[Level, Level]) -> None:
    """By alpha' alpha r^2 J^T A^T (sigma_y^2 I + r^2 A A^T)^-1 (y - A x0), all matrices dense."""
    A, y, x_t, linear = matrix(), randn(2, M), randn(2, *SHAPE, seed=2), Linear(pair)
    (a, b, _), (a_next, *_) = pair
    r2 = b**2 / (a**2 + b**2)
    whitened = torch.linalg.solve(0.09 * eye(M) + r2 * A @ A.T, (y - linear.x0(x_t) @ A.T).T)
    expected = a_next * a * r2 * (linear.J.T @ A.T @ whitened).T
    close(guided("pgdm", sampler, linear, y, 0.3, x_t), expected, 1e-11)
    close(guided("pgdm", sampler, linear, y, 0.3, x_t, weight=0.5), 0.5 * expected, 1e-11)


@pytest.mark.parametrize(("sampler", "pair"), GUIDED)
def test_dps_searches_along_its_line(sampler: str, pair: tuple[Level, Level]) -> None:
    """By w d, d = J^T A^T r / |r|; w / alpha' by least squares of A d w = r, less the noise's share of |r|."""
    A, x_t, linear = matrix(), randn(2, *SHAPE, seed=2), Linear(pair)
    y = randn(2, M) + 2.0
    moves = guided("dps", sampler, linear, y, 0.3, x_t)
    for move, measured, x0 in zip(moves, y, linear.x0(x_t), strict=True):
        r = measured - A @ x0
        d = linear.J.T @ A.T @ r / r.norm()
        best = torch.linalg.lstsq((A @ d)[:, None], r[:, None]).solution.item()
        left = 1.0 - M * 0.3**2 / float(r @ r)
        assert best > 0.0 < left < 1.0
        close(move, pair[1].alpha * best * math.sqrt(left) * d, 1e-11)


def test_dps_does_not_go_away_from_the_data() -> None:
    """A denoiser that turns everything round has d = -A^T r / (alpha |r|), along which the residual grows."""
    prior, x_t, (cur, nxt) = DenoiserPrior(lambda u, s: -u), randn(2, *SHAPE, seed=2), LEVELS["ddpm"][4]
    found = method("dps", prior, Dense(matrix()), randn(2, M) + 9.0, 0.3).predict(x_t, cur, nxt)[0]
    close(found, -x_t / cur.alpha)


def test_dps_does_not_fit_the_noise() -> None:
    """A residual that is no longer than the noise's, sqrt(M) sigma_y, pulls nothing; a longer one beside it does."""
    linear, x_t = Linear(LEVELS["ddpm"][4]), randn(2, *SHAPE, seed=2)
    residual = randn(2, M, seed=6)
    residual *= math.sqrt(M) * 0.3 * torch.tensor([[0.999], [1.2]]) / residual.norm(dim=1, keepdim=True)
    y = linear.x0(x_t) @ matrix().T + residual
    moves = guided("dps", "ddpm", linear, y, 0.3, x_t)
    close(moves[0], 0 * moves[0])
    assert moves[1].norm() > 1e-3


def adm() -> DDPMPrior:
    facts = golden_json("nets/adm_1")
    net = ADM(ADMConfig.from_reference(facts["config"], where="golden"))
    net.load_state_dict(rule_weights(net))
    return DDPMPrior(net.double().eval().requires_grad_(False), learned_range=True, clip_denoised=True)


def ncsnpp() -> FlowPrior:
    config = NCSNppConfig.from_reference(golden_json("nets/ncsnpp_1")["config"], where="golden")
    with torch.device("meta"):
        net = NCSNpp(config)
    net.load_state_dict(rule_weights(net), assign=True)
    return FlowPrior(net.double().eval().requires_grad_(False))


def natural() -> Prior:
    prior = load_prior("natural", where()).prior
    assert isinstance(prior, DenoiserPrior)
    prior.denoise.__self__.double()  # type: ignore[attr-defined]
    return prior


@pytest.mark.parametrize("build_prior", [adm, ncsnpp, natural])
def test_networks_are_differentiable(build_prior: Callable[[], Prior]) -> None:
    """<J^T v, d> = <v, J d>, the second by central differences, in float64, called where gradients are off."""
    prior, pair = build_prior(), LEVELS["ddpm"][5]
    x, v, d = (randn(1, 3, 32, 32, seed=k) for k in range(3))
    gradient = pulled_back(prior, x, *pair, lambda x0: v)[2]
    h = 1e-5
    along = (prior.predict(x + h * d, *pair)[0] - prior.predict(x - h * d, *pair)[0]) / (2 * h)
    assert (gradient * d).sum().item() == pytest.approx((v * along).sum().item(), rel=1e-4)


def test_windows_are_differentiable() -> None:
    """A network that sees a pixel alone has the same gradient in windows as at once."""
    whole = DenoiserPrior(lambda u, s: torch.tanh(u))
    x, v = randn(2, 3, 20, 24), randn(2, 3, 20, 24, seed=1)
    at_once, in_windows = (
        pulled_back(prior, x, *LEVELS["ddpm"][5], lambda x0: v) for prior in (whole, WindowedPrior(whole, 16))
    )
    close(in_windows[2], at_once[2])


# Modes: SPEC's formulas on dense matrices ----------------------------------------------------------------------------

OPERATORS = {
    "denoise": ("denoise", {}, (3, 4, 8)),
    "sr4": ("sr4", {}, (3, 8, 16)),
    "sr4 with zeros": ("sr4", {"svd_cutoff": 0.3}, (3, 8, 16)),
    "deblur-gauss": ("deblur-gauss", {}, (3, 8, 8)),
    "motion": ("motion", {"length": 5, "angle": 30}, (3, 8, 9)),
    "colorize": ("colorize", {"weights": "0.3,0.6,0.1"}, (3, 4, 8)),
    "inpaint": ("inpaint", {}, (3, 8, 8)),
    "cs": ("cs", {}, (3, 8, 8)),
}
operators = pytest.mark.parametrize("case", [*OPERATORS, "inside"])


@lru_cache
def operator(case: str, dtype: torch.dtype = torch.float64) -> LinearOperator:
    if case == "inside":
        return Inside(operator("motion", dtype), (3, 11, 10))
    task, options, shape = OPERATORS[case]
    return build(task, resolve(task, OperatorOptions(**options)), shape, dtype=dtype, device=where())


@lru_cache
def dense(case: str) -> Tensor:
    op = operator(case)
    size = math.prod(op.in_shape)
    return op.A(eye(size).reshape(size, *op.in_shape)).flatten(1).T


class Spectrum:
    """NumPy's full SVD of the dense matrix; values that the tool's cutoff calls zero are zero."""

    def __init__(self, A: Tensor) -> None:
        U, s, Vt = np.linalg.svd(A.numpy(), full_matrices=True)
        self.V = torch.from_numpy(Vt.T.copy())
        self.s = torch.zeros(A.shape[1], dtype=torch.float64)
        self.s[: len(s)] = torch.from_numpy(np.where(s > PINV_RCOND * s.max(), s, 0.0))
        self.Ut = torch.zeros(A.shape[1], A.shape[0], dtype=torch.float64)
        self.Ut[: min(A.shape)] = torch.from_numpy(U.T[: min(A.shape)].copy())

    def by_mode(self, formula: Callable[[float, int], Tensor]) -> Tensor:
        """V (formula(s_k, k) for each mode k), (B, N)."""
        return torch.stack([formula(float(s), k) for k, s in enumerate(self.s)], 1) @ self.V.T


@lru_cache
def spectrum(case: str) -> Spectrum:
    return Spectrum(dense(case))


@operators
def test_modes_are_a_singular_value_decomposition(case: str) -> None:
    """V S U^T = A^T, V S^2 V^T = A^T A, V^T V V^T = V^T; the margin and what is not measured are in no mode."""
    op, A = operator(case), dense(case)
    modes = op.modes
    assert modes is not None
    x, y = randn(2, *op.in_shape), randn(2, *op.out_shape, seed=1)
    close(modes.V(modes.singulars * modes.Ut(y)).flatten(1), y.flatten(1) @ A)
    close(modes.V(modes.singulars**2 * modes.Vt(x)).flatten(1), x.flatten(1) @ A.T @ A)
    c = modes.Vt(x)
    assert float((modes.Vt(modes.V(c)) - c).abs().max()) < 1e-11
    svd = spectrum(case)
    measured = modes.V(torch.where(modes.measured, c, 0.0)).flatten(1)
    close(measured, x.flatten(1) @ svd.V[:, svd.s > 0] @ svd.V[:, svd.s > 0].T)


def ddrm_step(svd: Spectrum, x0: Tensor, eps: Tensor, z: Tensor, y: Tensor, sigma_y: float, nxt: Level) -> Tensor:
    """SPEC section 4, in units of sigma / alpha."""
    c, e, w, u, eta, q = x0 @ svd.V, eps @ svd.V, z @ svd.V, y @ svd.Ut.T, 0.85, nxt.sigma / nxt.alpha

    def formula(s: float, k: int) -> Tensor:
        if s == 0.0:
            return c[:, k] + math.sqrt(1 - eta**2) * q * e[:, k] + eta * q * w[:, k]
        yh, ss = u[:, k] / s, sigma_y / s
        if q < ss:
            return c[:, k] + math.sqrt(1 - eta**2) * q * (yh - c[:, k]) / ss + eta * q * w[:, k]
        return yh + math.sqrt(q**2 - ss**2) * w[:, k]

    return nxt.alpha * svd.by_mode(formula)


def ddnm_step(
    A: Tensor, svd: Spectrum, x0: Tensor, eps: Tensor, z: Tensor, y: Tensor, sigma_y: float, nxt: Level
) -> Tensor:
    """SPEC section 4 with NumPy's pseudo-inverse: alpha' (x0 - V L V^T A^+ (A x0 - y)) + noise."""
    a, b, eta = nxt.alpha, nxt.sigma, 0.85
    shift = (x0 @ A.T - y) @ torch.from_numpy(np.linalg.pinv(A.numpy(), rcond=PINV_RCOND)).T @ svd.V
    e, w = eps @ svd.V, z @ svd.V

    def gain(s: float) -> float:
        return 1.0 if b >= a * sigma_y / s else b * math.sqrt(1 - eta**2) / (a * sigma_y / s)

    def noise(s: float, k: int) -> Tensor:
        if s == 0.0:
            return b * (math.sqrt(1 - eta**2) * e[:, k] + eta * w[:, k])
        full = b >= a * sigma_y / s
        return (math.sqrt(b**2 - (a * sigma_y / s) ** 2) if full else eta * b) * w[:, k]

    rectified = x0 - svd.by_mode(lambda s, k: shift[:, k] * (gain(s) if s > 0.0 else 0.0))
    return a * rectified + svd.by_mode(noise)


@pytest.mark.parametrize("sigma_y", [0.0, SIGMA_Y, 0.5])
@pytest.mark.parametrize("name", ["ddrm", "ddnm"])
@operators
def test_steps_by_mode_are_the_dense_formulas(case: str, name: str, sigma_y: float) -> None:
    op, A, svd = operator(case), dense(case), spectrum(case)
    y = randn(2, *op.out_shape, seed=4)
    x0, eps, z = (randn(2, *op.in_shape, seed=k) for k in range(1, 4))
    stepper = method(name, unit(), op, y, sigma_y)
    assert isinstance(stepper, OwnStep)
    for cur, nxt in (*LEVELS["ddpm"][3:], *LEVELS["flow"][::3], LEVELS["flow"][-1]):
        flat = [t.flatten(1) for t in (x0, eps, z, y)]
        expected = ddrm_step(svd, *flat, sigma_y, nxt) if name == "ddrm" else ddnm_step(A, svd, *flat, sigma_y, nxt)
        ours = stepper.moved(x0, eps, lambda _: z, cur, nxt)
        close(ours.flatten(1), expected, 1e-8)  # 1e-8: s down to 1e-4 of the largest


@operators
def test_ddrm_and_ddnm_are_one_step(case: str) -> None:
    """Two papers, two formulas, the same step at the same eta."""
    op = operator(case)
    y, (x0, eps, z) = randn(2, *op.out_shape, seed=4), (randn(2, *op.in_shape, seed=k) for k in range(1, 4))
    for cur, nxt in EVERY:
        ddrm, ddnm = (method(name, unit(), op, y) for name in ("ddrm", "ddnm"))
        steps = [stepper.moved(x0, eps, lambda _: z, cur, nxt) for stepper in (ddrm, ddnm)]  # type: ignore[attr-defined]
        close(*steps, 1e-9)


@operators
@pytest.mark.parametrize("level", [LEVELS["ddpm"][0][0], LEVELS["ddpm"][4][0], LEVELS["flow"][0][0]])
def test_ddrm_starts_from_the_measurement_where_it_is_better(case: str, level: Level) -> None:
    op, svd = operator(case), spectrum(case)
    y, z = randn(2, *op.out_shape, seed=4), randn(2, *op.in_shape, seed=3)
    w, u, q = z.flatten(1) @ svd.V, y.flatten(1) @ svd.Ut.T, level.sigma / level.alpha

    def formula(s: float, k: int) -> Tensor:
        ss = 0.5 / s if s > 0.0 else math.inf
        return u[:, k] / s + math.sqrt(q**2 - ss**2) * w[:, k] if q > ss else q * w[:, k]

    close(method("ddrm", unit(), op, y, 0.5).start(z, level).flatten(1), level.alpha * svd.by_mode(formula), 1e-8)


@pytest.mark.parametrize(("name", "knobs"), [("ddrm", {}), ("ddnm", {}), ("diffpir", {"zeta": 0.3})])
def test_a_step_of_its_own_begins_with_the_noise_of_the_state(name: str, knobs: dict[str, float]) -> None:
    """x_t = alpha x0 + sigma eps, with x0 as predicted and none of the sampler's noise; draws on an ODE too."""
    op, (cur, nxt) = operator("inpaint"), LEVELS["flow"][4]
    x_t, y, z = (randn(2, *shape) for shape in (op.in_shape, op.out_shape, op.in_shape))
    stepper = method(name, DenoiserPrior(soft), op, y, **knobs)
    assert isinstance(stepper, OwnStep)
    assert stepper.draws_on_ode
    x0 = stepper.predict(x_t, cur, nxt)[0]
    expected = stepper.moved(x0, (x_t - cur.alpha * x0) / cur.sigma, lambda _: z, cur, nxt)
    close(stepper.step(x_t, cur, nxt, 0.0, lambda _: z), expected)


@pytest.mark.parametrize("name", ["ddrm", "ddnm"])
def test_a_mode_as_noisy_as_the_level_is_what_was_measured(name: str) -> None:
    """At alpha' ss = sigma' (all powers of 2): x' = alpha' y with no noise more; a start there is noise alone."""
    op, level = operator("denoise"), Level(0.5, 0.25, 0.0)
    y, *others = (randn(2, *op.in_shape, seed=k) for k in range(4))
    x0, eps, z = others
    stepper = method(name, unit(), op, y, 0.5)
    assert isinstance(stepper, ModewisePosterior)
    close(stepper.moved(x0, eps, lambda _: z, ddpm_levels(8)[0], level), 0.5 * y)
    close(stepper.informed_start(z, level), 0.25 * z)


@operators
@pytest.mark.parametrize("name", ["ddrm", "ddnm"])
def test_a_perfect_denoiser_is_carried_to_the_next_level(case: str, name: str) -> None:
    """With x0 true, eps, z and n standard normal, x' has mean alpha' x0 and covariance sigma'^2 I in every mode."""
    op = operator(case)
    size, num_y = math.prod(op.in_shape), math.prod(op.out_shape)
    x = randn(1, *op.in_shape)
    units = eye(size).reshape(size, *op.in_shape)
    noises = eye(num_y).reshape(num_y, *op.out_shape)
    for cur, nxt in (LEVELS["ddpm"][4], LEVELS["ddpm"][6], LEVELS["flow"][6]):

        def step(y: Tensor, eps: Tensor, z: Tensor, pair: tuple[Level, Level] = (cur, nxt)) -> Tensor:
            x0 = x.expand(max(len(y), len(eps), len(z)), -1, -1, -1)
            return method(name, unit(), op, y).moved(x0, eps, lambda _: z, *pair).flatten(1)  # type: ignore[attr-defined]

        still = op.A(x)
        mean = step(still, 0 * x, 0 * x)
        close(mean, nxt.alpha * x.flatten(1), 1e-9)
        shares = [
            step(still, units, 0 * x) - mean,
            step(still, 0 * x, units) - mean,
            step(still + SIGMA_Y * noises, 0 * x, 0 * x) - mean,
        ]
        close(sum(share.T @ share for share in shares), nxt.sigma**2 * eye(size), 1e-9)


# DiffPIR, DMPS-Tweedie -----------------------------------------------------------------------------------------------


@operators
@pytest.mark.parametrize(("pair", "weight"), [(LEVELS["ddpm"][3], 1.0), (LEVELS["flow"][5], 0.25)])
def test_diffpir_minimises_its_objective(case: str, pair: tuple[Level, Level], weight: float) -> None:
    """The gradient of ||y - A x||^2 / (2 sigma_y^2) + l ||x - x0||^2 / (2 q^2) vanishes at x0p; then the step."""
    op, A, (cur, nxt) = operator(case), dense(case), pair
    prior = DenoiserPrior(lambda u, s: torch.tanh(u))
    y, x_t, z = randn(2, *op.out_shape, seed=4), randn(2, *op.in_shape), randn(2, *op.in_shape, seed=2)
    stepper = method("diffpir", prior, op, y, zeta=0.3, prior_weight=weight)
    x0p, std = stepper.predict(x_t, cur, nxt)
    assert std is None
    g = (cur.sigma / cur.alpha) ** 2 / weight
    pull = (x0p.flatten(1) @ A.T - y.flatten(1)) @ A / SIGMA_Y**2
    back = (x0p - torch.tanh(x_t / cur.alpha)).flatten(1) / g
    torch.testing.assert_close(pull, -back, rtol=0, atol=1e-9 * float(back.abs().max()) + 1e-12 / SIGMA_Y**2)
    eps = (x_t - cur.alpha * x0p) / cur.sigma
    expected = nxt.alpha * x0p + nxt.sigma * (math.sqrt(0.7) * eps + math.sqrt(0.3) * z)
    assert isinstance(stepper, OwnStep)
    close(stepper.moved(x0p, eps, lambda _: z, cur, nxt), expected)


@operators
@pytest.mark.parametrize("pair", [LEVELS["ddpm"][3], LEVELS["flow"][5]])
def test_tweedie_is_the_dense_formula(case: str, pair: tuple[Level, Level]) -> None:
    op, A, (cur, nxt) = operator(case), dense(case), pair
    y, x_t = randn(2, *op.out_shape, seed=4), randn(2, *op.in_shape)
    x0 = torch.tanh(x_t / cur.alpha)
    r2 = cur.sigma**2 / (cur.alpha**2 + cur.sigma**2)
    inner = SIGMA_Y**2 * eye(len(A)) + r2 * A @ A.T
    shift = r2 * torch.linalg.solve(inner, (y.flatten(1) - x0.flatten(1) @ A.T).T).T @ A
    x0p, _ = method("dmps-tweedie", DenoiserPrior(lambda u, s: torch.tanh(u)), op, y).predict(x_t, cur, nxt)
    close(x0p.flatten(1), x0.flatten(1) + shift, 1e-10)


# All methods ---------------------------------------------------------------------------------------------------------


class OwnNoise:
    """One generator per image, whatever stands beside it."""

    def __init__(self, seeds: list[int]) -> None:
        self.noise = Noise(0, Noise.STEP, [(seed, 0) for seed in seeds])

    def like(self, x: Tensor) -> Tensor:
        return self.noise.like(x)


def toy_knobs(name: str, sampler: str) -> dict[str, float]:
    """A constant zeta is right for one size of picture alone: DPS's for these small ones."""
    return {"zeta": {"ddpm": 1.0, "flow": 30.0}[sampler]} if name == "dps (authors)" else {}


def soft(u: Tensor, s: float) -> Tensor:
    """The denoiser of N(0, I) with its ends bent: not linear, and with a Jacobian of the right size at every level."""
    return torch.tanh(u / (1 + s**2))


def run(
    name: str,
    sampler: str,
    op: LinearOperator,
    y: Tensor,
    sigma_y: float,
    seeds: list[int],
    nfe: int = 4,
    **knobs: float,
) -> Tensor:
    prior = DenoiserPrior(soft)
    sampling = resolve_sampling(method=name, sampler=sampler, nfe=nfe, knobs=toy_knobs(name, sampler) | knobs)
    denoiser = build_posterior(sampling, prior, Measurement(y, op, sigma_y))
    levels = prior.levels(sampler, nfe, sampling.spacing, METHODS[name].start)
    z = Noise(0, Noise.START, [(seed, 0) for seed in seeds]).like(y.new_empty((len(y), *op.in_shape)))
    return sample(
        denoiser,
        levels,
        denoiser.start(z, levels[0]),
        eta=SAMPLERS[sampler].eta,
        noise=OwnNoise(seeds),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("name", "sampler"), RUNS)
def test_batch_of_two_is_two_of_one(name: str, sampler: str) -> None:
    """Bit for bit on a CPU, in float32, through a whole run."""
    for case in ("sr4", "motion", "inpaint"):
        op = operator(case, torch.float32)
        y = randn(2, *op.out_shape, seed=4).float()
        both = run(name, sampler, op, y, SIGMA_Y, [3, 5])
        for k, seed in enumerate([3, 5]):
            assert same(both[k], run(name, sampler, op, y[k : k + 1], SIGMA_Y, [seed])[0])


@pytest.mark.parametrize(("name", "sampler"), RUNS)
def test_without_noise_the_measurement_is_met(name: str, sampler: str) -> None:
    """sigma_y = 0 works: what was measured is reproduced; exactly by the last step of those that project."""
    op = operator("inpaint")
    x = 0.5 * torch.tanh(randn(1, *op.in_shape, seed=6))
    y = op.A(x)
    misfit = float((op.A(run(name, sampler, op, y, 0.0, [3], nfe=30)) - y).norm() / y.norm())
    near = {"dmps (x_t)": 0.1, "dmps (sample)": 0.1, "ot-ode": 0.1, "pgdm": 0.1}
    near |= {"dps (line search)": 0.1, "dps (authors)": 0.4}
    assert misfit < near.get(name, 1e-9)


@pytest.mark.parametrize(("name", "sampler"), RUNS)
def test_a_margin_is_the_middle_of_a_larger_picture(name: str, sampler: str) -> None:
    """A prior with a least size: `restore` gives the middle of what the method does with the larger operator."""
    prior = DenoiserPrior(soft)
    prior.least_size = 11
    op = operator("motion")
    y = randn(1, *op.out_shape, seed=4)
    sampling = resolve_sampling(method=name, sampler=sampler, nfe=4, knobs=toy_knobs(name, sampler))
    middle = restore(Measurement(y, op, SIGMA_Y), prior, sampling, seed=0, keys=[(3, 0)])
    larger = Inside(op, (3, 11, 11))
    close(middle, larger.crop(run(name, sampler, larger, y, SIGMA_Y, [3])))


@pytest.mark.parametrize("name", METHODS)
def test_an_operator_without_modes(name: str) -> None:
    """Methods that need them say so and name the others; the others bring A x nearer to y than the prior alone is."""
    op = build("cs", resolve("cs", OperatorOptions()), (3, 9, 12), dtype=torch.float64, device=where())
    y = op.A(torch.tanh(randn(1, *op.in_shape, seed=6)))
    sampler = samplers_of(name)[0]
    if METHODS[name].needs_modes:
        with pytest.raises(
            UsageError, match=f"method '{name}' needs.* choose one of {re.escape(', '.join(WITHOUT_MODES))}$"
        ):
            run(name, sampler, op, y, SIGMA_Y, [3])
        return
    alone = run("dps (authors)", "ddpm", op, y, SIGMA_Y, [3], nfe=1, zeta=0.0)  # nothing moved: the prior
    assert (op.A(run(name, sampler, op, y, SIGMA_Y, [3], nfe=30)) - y).norm() < 0.8 * (op.A(alone) - y).norm()


def test_going_back_through_the_network_counts_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is room for one call of the network and not for its activations, DPS is refused and DMPS is not."""
    prior, op = DenoiserPrior(soft), operator("inpaint")
    prior.bytes_per_pixel = 1000.0
    monkeypatch.setattr(device, "free_bytes", lambda _: 2 * 1000 * 64)
    y = randn(1, *op.out_shape)
    for name, row in METHODS.items():
        sampling = resolve_sampling(method=name, nfe=1)
        with pytest.raises(MemoryShortageError) if row.back_propagates else nullcontext():
            restore(Measurement(y, op, SIGMA_Y), prior, sampling, seed=0, keys=[(0, 0)])


# Tables and commands -------------------------------------------------------------------------------------------------


def test_every_method_resolves_everywhere() -> None:
    """Defaults are values that the checks accept, for each task and preset; every knob has an option."""
    assert {name for name, _ in DEFAULTS} == set(METHODS)
    assert set(KNOBS) <= {field.name for field in fields(SamplingOptions)}
    for (name, sampler), task, preset in (
        (pair, task, preset) for pair in RUNS for task in TASKS for preset in PRESETS if PRESETS[preset].has(pair[0])
    ):
        sampling = resolve_sampling(task=task, method=name, sampler=sampler, preset=preset)
        assert sampling.knobs.keys() == METHODS[name].knobs.keys()


def test_the_papers_preset() -> None:
    for task in TASKS:
        ddpm, flow = (resolve_sampling(task=task, sampler=sampler, preset="paper") for sampler in SAMPLERS)
        knobs = {"weight": 1.75, "score_at": "x_t", "cap": None}
        assert ddpm == Sampling(method="dmps (x_t)", sampler="ddpm", nfe=1000, spacing="uniform", knobs=knobs)
        assert (flow.nfe, flow.knobs) == (50, knobs | {"weight": 2.0})


@pytest.mark.parametrize(
    ("task", "weight"),
    [("sr4", 1.75), ("deblur", 1.0), ("motion", 1.0), (None, 1.75)],
)
def test_defaults_by_task(task: str | None, weight: float) -> None:
    assert resolve_sampling(task=task, method="dmps (x_t)").knobs["weight"] == weight
    assert resolve_sampling(task=task, method="diffpir").knobs == {"zeta": 1.0, "prior_weight": 1.0}


@pytest.mark.parametrize(("task", "dps", "diffpir"), [("sr4", 0.3, 0.1), ("inpaint", 0.5, 1.0), ("deblur", 0.3, 0.1)])
def test_baselines_as_their_authors_have_them(task: str, dps: float, diffpir: float) -> None:
    """The constants of the authors' own configurations, in --preset paper."""
    names = ("dps", "diffpir", "pgdm")
    assert {name: resolve_sampling(task=task, method=name, preset="paper").knobs for name in names} == {
        "dps": {"zeta": dps},
        "diffpir": {"zeta": diffpir, "prior_weight": 0.25},
        "pgdm": {"weight": 1.0, "guidance": "bayes"},
    }
    assert resolve_sampling(task=task, method="dps").method == "dps (line search)"
    given = resolve_sampling(task=task, method="dps", knobs={"zeta": "0.7"})
    assert (given.method, given.knobs) == ("dps (authors)", {"zeta": 0.7})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--method", "ddrm", "--lambda", "1"],
            "method 'ddrm' takes no --lambda; it belongs to dmps (x_t), dmps (sample), dmps-tweedie, pgdm",
        ),
        (["--method", "diffpir", "--zeta", "1.5"], "--zeta is 1.5; expected a number from 0 to 1"),
        (["--method", "diffpir", "--prior-weight", "0"], "--prior-weight is 0; expected a number, above 0"),
        (["--method", "ot-ode", "--gamma", "2"], "--gamma is '2'; expected one of 1, sqrt"),
        (["--method", "ot-ode", "--sampler", "ddpm"], "'ot-ode' is not defined on ddpm levels; take --sampler flow"),
        (["--method", "ddmr"], "did you mean 'ddrm'?"),
        (["--preset", "papre"], "did you mean 'paper'?"),
    ],
)
def test_misuse_is_said_in_one_line(dmps: Dmps, tmp_path: Path, arguments: list[str], said: str) -> None:
    photo(tmp_path / "p.png")
    result = dmps("restore", "p.png", "--task", "sr4", *arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert said in result.err


def test_a_method_takes_the_ladder_that_it_is_defined_on(dmps: Dmps, tmp_path: Path) -> None:
    """ot-ode has no DDPM levels; the prior's own sampler is no choice of the user's. The sidecar has the knobs."""
    photo(tmp_path / "p.png", (8, 8))
    result = dmps("restore", "p.png", "--task", "denoise", "--method", "ot-ode", "--nfe", "2")
    assert result.code == 0, result.err
    sidecar = json.loads(Path("p_restored.json").read_text())
    assert (sidecar["method"], sidecar["sampler"], sidecar["gamma"]) == ("ot-ode", "flow", "sqrt")
    assert "lambda" not in sidecar


def test_eval_compares_methods(dmps: Dmps, tmp_path: Path) -> None:
    """The same measurement and noise whoever else is compared; options go to those that take them."""
    (tmp_path / "photos").mkdir()
    photo(tmp_path / "photos" / "p.png", (32, 32))
    common = ["eval", "--dataset", "photos", "--tasks", "inpaint", "--nfe", "2", "--json", "-q"]
    result = dmps(
        *common, "--methods", "dmps,ot-ode,ddrm", "--samplers", "ddpm,flow", "--lambda", "1.5", "--spacing", "uniform"
    )
    assert result.code == 0, result.err
    means, rows = (json.loads(result.out)[key] for key in ("means", "rows"))
    assert [(row["method"], row["sampler"]) for row in means] == [
        ("dmps (x_t)", "ddpm"), ("dmps (x_t)", "flow"), ("ot-ode", "flow"), ("ddrm", "ddpm"), ("ddrm", "flow"),
    ]  # fmt: skip
    assert [(row["lambda"], row["eta"], row["gamma"]) for row in means[2:4]] == [
        (None, None, "sqrt"),
        (None, 0.85, None),
    ]
    assert means[0]["lambda"] == 1.5
    alone = json.loads(dmps(*common, "--method", "ddrm", "--spacing", "uniform").out)["rows"][0]
    assert alone["psnr"] == next(row for row in rows if row["method"] == "ddrm")["psnr"]
    assert "did you mean 'ddrm'?" in dmps(*common, "--methods", "dmps,ddmr", "--lambda", "1").err
    assert "none takes --gamma; it belongs to ot-ode" in dmps(*common, "--methods", "dmps,ddrm", "--gamma", "1").err


def test_eval_goes_on_where_one_method_cannot(dmps: Dmps, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    photo(tmp_path / "photos" / "p.png", (24, 20))
    result = dmps("eval", "--dataset", "photos", "--tasks", "cs", "--methods", "ddrm,diffpir", "--nfe", "1", "--json")
    assert result.code == 1
    found = json.loads(result.out)
    assert [row["method"] for row in found["rows"]] == ["diffpir"]
    assert [failure["input"] for failure in found["failures"]] == ["p.png"]
    assert "needs a singular value decomposition" in result.err


def test_time_compares_methods(dmps: Dmps) -> None:
    arguments = ["--image-size", "16", "--repeats", "1", "--nfe", "1", "--json"]
    rows = json.loads(dmps("time", "--methods", "dmps,dps", *arguments).out)["rows"]
    found = [(row["method"], row["calls"], row.get("zeta")) for row in rows]
    assert found == [("unconditional", 1, None), ("dmps (x0)", 1, None), ("dps (line search)", 1, None)]
