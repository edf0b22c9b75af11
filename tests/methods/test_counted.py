"""DMPS with its likelihood at x0: against dense matrices, and its account of the measurement's noise."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.moments import moments
from dmps_cli.files.images import load_rgb, photo_paths
from dmps_cli.levels import CLEAN, Level
from dmps_cli.methods.choice import build_posterior, resolve_sampling
from dmps_cli.methods.counted import ENDING, CountedDmps, ReflectedDmps
from dmps_cli.methods.posterior import Posterior
from dmps_cli.methods.solver import MAX_ITER, TruncatedSolver
from dmps_cli.metrics.scorer import Scorer
from dmps_cli.operators.base import PINV_DAMPING, LinearOperator
from dmps_cli.operators.circular import CircularConvolution
from dmps_cli.operators.convolution import ValidConvolution
from dmps_cli.operators.kernels import line
from dmps_cli.operators.measurement import Measurement
from dmps_cli.operators.separable import separable_blur
from dmps_cli.pipeline import degrade, restore
from dmps_cli.priors import DenoiserPrior, Prior
from dmps_cli.sampling import Fresh, Noise, sample
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve
from dmps_cli.weights.loading import load_prior
from tests.conftest import Iterated, randn, where
from tests.shell import Dmps, photo

SHAPE, SIGMA_Y = (2, 5, 6), 0.1
N = math.prod(SHAPE)
LEVELS = [(Level(0.6, 0.8, 0.0), Level(0.8, 0.6, 0.0)), (Level(0.95, 0.31, 0.0), Level(0.99, 0.05, 0.0))]


def blur() -> LinearOperator:
    return separable_blur(SHAPE, [0.2, 0.6, 0.2], [0.25, 0.5, 0.25], dtype=torch.float64, device=where())


def mask() -> LinearOperator:
    return build(
        "inpaint", resolve("inpaint", OperatorOptions(fraction=0.4)), SHAPE, dtype=torch.float64, device=where()
    )


def dense(op: LinearOperator) -> Tensor:
    return op.A(torch.eye(N, dtype=torch.float64).reshape(N, *SHAPE)).flatten(1).T


def counted(op: LinearOperator, y: Tensor, **knobs: float) -> CountedDmps:
    return CountedDmps(
        DenoiserPrior(lambda z, s: z),
        Measurement(y, op, SIGMA_Y),
        **{"variance_factor": 3.0, "eta": 0.85, "eta_y": 0.8, **knobs},
    )


@pytest.mark.parametrize("make", [blur, mask])
@pytest.mark.parametrize(("cur", "nxt"), LEVELS)
def test_step_is_the_formula_on_dense_matrices(make: Callable[[], LinearOperator], cur: Level, nxt: Level) -> None:
    """By the SVD of the dense matrix, mode after mode."""
    op = make()
    y, x0, eps, z = (randn(1, *shape, seed=k) for k, shape in enumerate([op.out_shape, SHAPE, SHAPE, SHAPE]))
    U, S, Vt = torch.linalg.svd(dense(op))
    c, e, fresh = (Vt @ image.flatten() for image in (x0, eps, z))
    yh = U.T @ y.flatten()
    q0, q = cur.sigma / cur.alpha, nxt.sigma / nxt.alpha
    expected = c + q * (math.sqrt(1 - 0.85**2) * e + 0.85 * fresh)
    for mode, s in enumerate(S.tolist()):
        if s < 1e-4 * float(S.max()):
            continue
        spread = SIGMA_Y / s
        k = min(3.0 * q0**2 / (3.0 * q0**2 + spread**2), q / spread)
        noise = math.sqrt(max(q**2 - (k * spread) ** 2, 0.0)) * (0.6 * e[mode] + 0.8 * fresh[mode])
        expected[mode] = c[mode] + k * (yh[mode] / s - c[mode]) + noise
    ours = counted(op, y).moved(x0, eps, lambda _: z, cur, nxt)
    torch.testing.assert_close(ours.flatten(), nxt.alpha * Vt.T @ expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("make", [blur, mask])
@pytest.mark.parametrize("cur", [LEVELS[0][0], LEVELS[1][1], Level(0.5, 0.06, 0.0)])
@pytest.mark.parametrize("sigma_y", [0.0, SIGMA_Y])
def test_at_the_clean_end_the_data_are_weighed_against_the_error_of_x0(
    make: Callable[[], LinearOperator], cur: Level, sigma_y: float
) -> None:
    """Precisions add up: 1 / v of x0, 1 / ss^2 of y, v = ENDING (q^2 - ss^2); a noisier mode stays. No noise."""
    op = make()
    y, x0, eps, z = (randn(1, *shape, seed=k) for k, shape in enumerate([op.out_shape, SHAPE, SHAPE, SHAPE]))
    U, S, Vt = torch.linalg.svd(dense(op))
    c, yh, q0 = Vt @ x0.flatten(), U.T @ y.flatten(), cur.sigma / cur.alpha
    expected = c.clone()
    for mode, s in enumerate(S.tolist()):
        if sigma_y < s * q0 and s > 1e-4 * float(S.max()):
            v = ENDING * (q0**2 - (sigma_y / s) ** 2)
            expected[mode] = (sigma_y**2 * c[mode] + v * s * yh[mode]) / (sigma_y**2 + v * s**2)
    method = CountedDmps(
        DenoiserPrior(lambda z, s: z), Measurement(y, op, sigma_y), variance_factor=3.0, eta=0.85, eta_y=0.8
    )
    ours = method.moved(x0, eps, lambda _: z, cur, CLEAN)
    torch.testing.assert_close(ours.flatten(), Vt.T @ expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("make", [blur, mask])
@pytest.mark.parametrize(("cur", "nxt"), LEVELS)
def test_the_state_is_as_noisy_as_its_level(make: Callable[[], LinearOperator], cur: Level, nxt: Level) -> None:
    """If x0 is right, what is left of n and what is drawn add up to sigma'^2 in every direction, by covariances."""
    op, A = make(), dense(make())
    y0, zero = torch.zeros(1, *op.out_shape, dtype=torch.float64), torch.zeros(1, *SHAPE, dtype=torch.float64)
    m = A.shape[0]

    def of_y(y: Tensor) -> Tensor:
        x0 = zero.expand(len(y), *SHAPE)
        return counted(op, y, eta=1.0, eta_y=1.0).moved(x0, x0, lambda _: x0, cur, nxt)

    from_n = of_y(SIGMA_Y * torch.eye(m, dtype=torch.float64).reshape(m, *op.out_shape)).flatten(1)
    basis = torch.eye(N, dtype=torch.float64).reshape(N, *SHAPE)
    none = zero.expand(N, *SHAPE)
    method = counted(op, y0.expand(N, *op.out_shape), eta=1.0, eta_y=1.0)
    from_z = method.moved(none, none, lambda _: basis, cur, nxt).flatten(1)
    covariance = from_n.T @ from_n + from_z.T @ from_z
    torch.testing.assert_close(covariance, nxt.sigma**2 * torch.eye(N, dtype=torch.float64), rtol=0, atol=1e-10)


# Any operator, by solves alone ---------------------------------------------------------------------------------------


def periodic(shape: tuple[int, int, int] = SHAPE, dtype: torch.dtype = torch.float64) -> CircularConvolution:
    return CircularConvolution(shape, line(3.0, 30.0).values, dtype=dtype, device=where())


ANY = {
    "valid": lambda: ValidConvolution(SHAPE, line(3.0, 30.0).values, dtype=torch.float64, device=where()),
    "periodic": lambda: Iterated(periodic()),
    "mask": lambda: Iterated(mask()),
    "padded cs": lambda: build("cs", resolve("cs", OperatorOptions()), SHAPE, dtype=torch.float64),
}
ETAS = [(0.85, 1.0), (1.0, 0.8), (1.0, 1.0), (0.0, 0.0), (0.6, 0.3), (0.998, 0.8)]
any_operator = pytest.mark.parametrize("name", ANY)


def reflected(op: LinearOperator, y: Tensor, sigma_y: float = SIGMA_Y, **knobs: float) -> ReflectedDmps:
    """Its solves run to convergence."""
    prior, chosen = DenoiserPrior(lambda z, s: z), {"variance_factor": 3.0, "eta": 0.85, "eta_y": 1.0, **knobs}
    method = ReflectedDmps(prior, Measurement(y, op, sigma_y), **chosen)
    method.solver = TruncatedSolver(op, len(y), tolerance=1e-9, max_iter=5000)
    return method


def draws(*tensors: Tensor) -> Fresh:
    """Hands out these, one after another."""
    left = list(tensors)
    return lambda like: left.pop(0).expand_as(like)


def chord(eta: float, eta_y: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """(shares of eps and z where nothing is measured, those where all is), on the unit circle, 90 degrees apart."""
    known, measured = (math.sqrt(1 - eta**2), eta), (math.sqrt(1 - eta_y**2), -eta_y)
    if math.dist(known, measured) ** 2 < 2.0 - 1e-12:
        measured = (-measured[0], measured[1])
    return known, measured


@any_operator
@pytest.mark.parametrize(("eta", "eta_y"), ETAS)
@pytest.mark.parametrize("sigma_y", [0.0, SIGMA_Y])
@pytest.mark.parametrize(("cur", "nxt"), [*LEVELS, (Level(0.02, 1.0, 0.0), Level(0.05, 1.0, 0.0))])
def test_solves_alone_give_the_formula_mode_by_mode(
    name: str, eta: float, eta_y: float, sigma_y: float, cur: Level, nxt: Level
) -> None:
    """By the SVD of the dense matrix."""
    op = ANY[name]()
    y, x0, eps, z, n = (
        randn(1, *shape, seed=k) for k, shape in enumerate([op.out_shape, SHAPE, SHAPE, SHAPE, op.out_shape])
    )
    U, S, Vt = torch.linalg.svd(dense(op))
    s = torch.cat([S, torch.zeros(N - len(S), dtype=torch.float64)])

    def measured(image: Tensor) -> Tensor:
        return torch.cat([U.T @ image.flatten(), torch.zeros(N - len(S), dtype=torch.float64)])

    c, e, fresh, yh, n_h = (Vt @ x0.flatten(), Vt @ eps.flatten(), Vt @ z.flatten(), measured(y), measured(n))
    q0, q, (known, all_measured) = cur.sigma / cur.alpha, nxt.sigma / nxt.alpha, chord(eta, eta_y)
    room = math.dist(known, all_measured) ** 2

    def gain(v: float) -> tuple[Tensor, float]:
        s2 = max(sigma_y**2, (PINV_DAMPING[op.dtype] * op.norm) ** 2 * v)
        return v * s / (s2 + v * s**2), s2

    v = min(3.0 * q0**2, room * q**2)
    (K0, _), (K, s2) = gain(room * q0**2), gain(v)
    k, w = K * s, e - K0 * (yh - s * c) / q0
    d = math.sqrt(max(room * q**2 * s2 / v - sigma_y**2, 0.0))
    noise = q * ((1 - k) * (known[0] * w + known[1] * fresh) + k * (all_measured[0] * e + all_measured[1] * fresh))
    expected = nxt.alpha * Vt.T @ (c + K * (yh - s * c) + noise + K * d * n_h)
    ours = reflected(op, y, sigma_y, eta=eta, eta_y=eta_y).moved(x0, eps, draws(z, n), cur, nxt)
    torch.testing.assert_close(ours.flatten(), expected, rtol=0, atol=1e-5 * max(1.0, q))


@any_operator
@pytest.mark.parametrize("eta_y", [1.0, 0.8, 0.3])
@pytest.mark.parametrize("factor", [3.0, 0.5])
@pytest.mark.parametrize(("cur", "nxt"), LEVELS)
def test_any_state_is_as_noisy_as_its_level(name: str, eta_y: float, factor: float, cur: Level, nxt: Level) -> None:
    """If x0 is right: y's noise, eps, z and n' add up to sigma'^2 in every direction, by covariances."""
    op = ANY[name]()
    m, zero = math.prod(op.out_shape), torch.zeros(1, *SHAPE, dtype=torch.float64)
    none = torch.zeros(1, *op.out_shape, dtype=torch.float64)
    images, data = torch.eye(N, dtype=torch.float64).reshape(N, *SHAPE), torch.eye(m, dtype=torch.float64)
    data = data.reshape(m, *op.out_shape)

    def response(count: int, y: Tensor = none, eps: Tensor = zero, z: Tensor = zero, n: Tensor = none) -> Tensor:
        x0, y = zero.expand(count, *SHAPE), y.expand(count, *op.out_shape)
        method = reflected(op, y, variance_factor=factor, eta=1.0, eta_y=eta_y)
        return method.moved(x0, eps.expand_as(x0), draws(z, n), cur, nxt).flatten(1)

    shares = [
        response(m, y=SIGMA_Y * data), response(N, eps=images), response(N, z=images), response(m, n=data)
    ]  # fmt: skip
    covariance = sum(share.T @ share for share in shares)
    torch.testing.assert_close(covariance, nxt.sigma**2 * torch.eye(N, dtype=torch.float64), rtol=0, atol=1e-7)


def test_a_step_that_draws_all_its_noise_is_one_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one from nothing: no other goes on from step to step."""
    op, x0, (cur, nxt) = ANY["valid"](), randn(1, *SHAPE), LEVELS[0]
    method, solved = reflected(op, randn(1, *op.out_shape, seed=1), eta=1.0), []
    monkeypatch.setattr(TruncatedSolver, "__call__", lambda self, r, *_: solved.append(r) or r)
    method.moved(x0, x0, draws(x0, randn(1, *op.out_shape)), cur, nxt)
    assert solved == []


@any_operator
def test_what_eps_brings_back_of_the_measurements_noise_is_taken_out(name: str) -> None:
    """With x0 right and eps = K_q n / q, all of it y's noise n, the step has K n of n and no more, as with eta = 1."""
    op, (cur, nxt) = ANY[name](), LEVELS[0]
    q0, n = cur.sigma / cur.alpha, randn(1, *op.out_shape, seed=5)
    zero, silent = (
        torch.zeros(1, *SHAPE, dtype=torch.float64),
        draws(torch.zeros(()).double(), torch.zeros(()).double()),
    )
    method = reflected(op, n, eta=0.5, eta_y=1.0)
    v = method.room * q0**2
    eps = v / q0 * op.At(op.solve(n, SIGMA_Y**2, v))
    v = min(3.0 * q0**2, method.room * (nxt.sigma / nxt.alpha) ** 2)
    expected = nxt.alpha * v * op.At(op.solve(n, SIGMA_Y**2, v))
    torch.testing.assert_close(method.moved(zero, eps, silent, cur, nxt), expected, rtol=0, atol=1e-7)


@any_operator
def test_at_the_clean_end_the_sample_is_the_priors(name: str) -> None:
    op, x0 = ANY[name](), randn(2, *SHAPE)
    method = reflected(op, randn(2, *op.out_shape, seed=1))
    sample = method.moved(x0, randn(2, *SHAPE, seed=2), torch.zeros_like, LEVELS[1][1], CLEAN)
    torch.testing.assert_close(sample, x0, rtol=0, atol=0)


SIZE, NOISE = 64, 0.05


def photograph() -> Tensor:
    path = next(path for path in photo_paths() if path.stem == "chelsea")
    return load_rgb(path).pixels[None, :, 96 : 96 + SIZE, 96 : 96 + SIZE]


@lru_cache
def bundled() -> Prior:
    return load_prior("natural", where()).prior


class Exact(TruncatedSolver):
    """The closed form of a periodic blur, mode by mode."""

    def __call__(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        return periodic((3, SIZE, SIZE), torch.float32).solve(r, self.noise_var(noise_var, scale), scale)

    anew = __call__


def test_truncated_solves_give_the_picture_that_modes_give() -> None:
    """Within 0.05 dB and 0.005 LPIPS; 20 evaluations of the bundled prior."""
    op, x, sampling = Iterated(periodic((3, SIZE, SIZE), torch.float32)), photograph(), resolve_sampling(preset="fast")
    y = degrade(x, op, NOISE, seed=0, keys=[(0, 0)])

    def by_modes(method: Posterior) -> Posterior:
        method.solver = Exact(op, 1)
        return method

    scores = []
    for instrument in (lambda method: method, by_modes):
        restored = restore(Measurement(y, op, NOISE), bundled(), sampling, seed=0, keys=[(0, 0)], instrument=instrument)
        scores.append(Scorer(["psnr", "lpips"]).score(restored, x)[0])
    assert scores[0]["psnr"] == pytest.approx(scores[1]["psnr"], abs=0.05)
    assert scores[0]["lpips"] == pytest.approx(scores[1]["lpips"], abs=0.005)
    assert scores[0]["psnr"] > 25.0


def test_a_batch_of_two_is_two_of_one() -> None:
    """Through the whole loop, iterations included; nothing of a run is left for the next."""
    op, keys = ANY["valid"](), [(0, 0), (1, 0)]
    y = op.A(torch.tanh(randn(2, *SHAPE))) + SIGMA_Y * randn(2, *op.out_shape, seed=1)
    prior = DenoiserPrior(lambda u, s: u / (1.0 + s**2), channels=2)

    def run(y: Tensor, keys: list[tuple[int, int]]) -> tuple[Tensor, list[list[int]]]:
        levels, sampling = prior.levels("ddpm", 8, "quadratic"), resolve_sampling(preset="fast", nfe=8)
        method = build_posterior(sampling, prior, Measurement(y, op, SIGMA_Y))
        assert isinstance(method, ReflectedDmps)
        counts = []
        z = Noise(0, Noise.START, keys).like(y.new_empty(len(y), *SHAPE))
        x = sample(
            method,
            levels,
            method.start(z, levels[0]),
            eta=1.0,
            noise=Noise(0, Noise.STEP, keys),
            on_step=lambda: counts.append(method.solver.total),
        )
        return x, torch.stack(counts, dim=1).tolist()

    (both, counts), again = run(y, keys), run(y, keys)[0]
    assert torch.equal(both, again)
    for i, key in enumerate(keys):
        alone, count = run(y[i : i + 1], [key])
        torch.testing.assert_close(alone[0], both[i], rtol=0, atol=1e-9)
        assert count[0] == counts[i]


@pytest.mark.parametrize("preset", ["default", "fast"])
def test_the_sidecar_has_the_iterations_of_each_step(dmps: Dmps, preset: str) -> None:
    photo(Path("x.png"))
    assert (
        dmps("degrade", "x.png", "--task", "blur", "--kernel", "motion:9,30", "--boundary", "valid", "-o", "y.png").code
        == 0
    )
    assert dmps("restore", "y.png", "-o", "r.png", "--preset", preset, "--nfe", "3").code == 0
    iterations = json.loads(Path("r.json").read_text())["iterations"]
    assert len(iterations) == 3
    assert all(0 <= count <= 2 * MAX_ITER for count in iterations)
    assert max(iterations) > 2


# Against a posterior that is known -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["denoise", "deblur"])
def test_with_the_flat_variance_and_fresh_noise_the_mean_is_the_posteriors(task: str) -> None:
    """Of a Gaussian prior; a sample is never more spread than the posterior (docs/defaults.md has the figures)."""
    knobs = {"variance_factor": 1.0, "eta": 1.0, "eta_y": 1.0}
    few, many = (moments(task, nfe, knobs=knobs) for nfe in (20, 200))
    assert many.bias < 0.01 < few.bias < 0.1
    assert 0.2 < few.variance < many.variance < 0.6
