"""Other libraries on the same measurements with the same prior: azula and deepinv beside this one.

    pip install '.[peers]'
    python benchmarks/peers.py check
    python benchmarks/peers.py table photographs/ [--tasks sr4,deblur,inpaint,colorize,denoise] [--size 128] [--limit 2]

`check` runs one algorithm in both, in float64, on the same levels and with the same noise, and prints how far the two
pictures are apart. `table` runs each library's methods as it documents them, on the middle of each photograph, and
prints PSNR, LPIPS, seconds of CPU, calls of the network and calls back through it, all means. azula's samplers are
given our DDPM levels; deepinv's DPS and DiffPIR have levels of their own, its DDRM takes ours.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from scipy.interpolate import griddata
from torch import Tensor

from dmps_cli.device import resolve_device, tune_allocator
from dmps_cli.files.images import load_rgb
from dmps_cli.levels import SAMPLERS, Level
from dmps_cli.methods.choice import build_posterior, resolve_sampling
from dmps_cli.metrics.scorer import Scorer
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.measurement import Measurement
from dmps_cli.pipeline import degrade, picture_key
from dmps_cli.priors import Prior
from dmps_cli.sampling import sample
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve, task
from dmps_cli.training.photographs import find_photos
from dmps_cli.weights.loading import load_prior

try:
    import azula.denoise
    import azula.guidance.diffpir
    import azula.guidance.dps
    import azula.guidance.mmps
    import azula.guidance.pgdm
    import azula.linalg.covariance
    import azula.noise
    import azula.sample
    import deepinv
except ImportError as exc:
    sys.exit(f"peers: {exc.name} is not installed: pip install '.[peers]'")

SPACING = "quadratic"


class Back(torch.autograd.Function):
    """The identity, which counts how often a gradient comes back through it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, counted: Counted) -> Tensor:
        """Returns x."""
        ctx.counted = counted
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Returns the gradient."""
        ctx.counted.backward += 1
        return gradient, None


class Counted(Prior):
    """A prior that counts its calls, and those back through it."""

    def __init__(self, prior: Prior) -> None:
        self.prior, self.calls, self.backward = prior, 0, 0

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns the prior's own."""
        self.calls += 1
        return self.prior.predict(Back.apply(x_t, self), cur, nxt)

    def denoised(self, z: Tensor, s: float) -> Tensor:
        """Returns D(z; s) = E[x0 | x0 + s eps = z]."""
        level = Level(1.0, max(s, 1e-3), 0.0)
        return self.predict(z, level, level)[0]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One measurement and what restores it: a prior, the levels of a run."""

    measurement: Measurement
    prior: Counted
    levels: list[Level]

    @property
    def op(self) -> LinearOperator:
        """A."""
        return self.measurement.op

    def z(self) -> Tensor:
        """Returns the noise to start from, the same for all."""
        torch.manual_seed(7)
        return torch.randn(1, *self.op.in_shape, dtype=self.op.dtype)


Run = Callable[[Case], Tensor]


# Ours ----------------------------------------------------------------------------------------------------------------


def ours(method: str, **knobs: Any) -> Run:
    """Returns a run of a method of this library."""

    def run(case: Case) -> Tensor:
        sampling = resolve_sampling(
            task=case.op.task, method=method, sampler="ddpm", nfe=len(case.levels) - 1, spacing=SPACING, knobs=knobs
        )
        posterior = build_posterior(sampling, case.prior, case.measurement)
        eta = SAMPLERS["ddpm"].eta
        with torch.no_grad():
            return sample(posterior, case.levels, posterior.start(case.z(), case.levels[0]), eta=eta, noise=Global())  # type: ignore[arg-type]

    return run


class Global:
    """The noise that the other libraries draw, from PyTorch's own generator."""

    def like(self, x: Tensor) -> Tensor:
        """Returns noise like x."""
        return torch.randn_like(x)


def plain(case: Case) -> Tensor:
    """Returns the solution that needs no prior.

    Bicubic enlargement, linear interpolation between known pixels, the grey value, A^T y for cs, else y itself.
    """
    op, y = case.op, case.measurement.y
    if op.task == "sr4":
        return torch.nn.functional.interpolate(y, size=op.in_shape[1:], mode="bicubic")
    if op.task == "inpaint":
        is_known = op.At(torch.ones_like(y))[0, 0].numpy() > 0.0
        known, wanted = np.argwhere(is_known), np.argwhere(np.ones_like(is_known))
        filled = [interpolated(known, channel[is_known], wanted) for channel in op.At(y)[0].numpy()]
        return torch.from_numpy(np.stack(filled)).reshape(1, *op.in_shape).to(y)
    if op.task == "colorize":
        return y.expand(-1, op.in_shape[0], -1, -1)
    return y if op.out_shape == op.in_shape else op.At(y)


def interpolated(known: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns values at places (N, 2), linear between known ones, the nearest beyond them."""
    linear, nearest = (griddata(known, values, wanted, method=method) for method in ("linear", "nearest"))
    return np.where(np.isnan(linear), nearest, linear)


# azula: all tensors flat, (B, N) and (B, M), as its solvers want them ------------------------------------------------


class OurLevels(azula.noise.Schedule):
    """Our levels at its times 1, 1 - 1/n, .., 0."""

    def __init__(self, levels: list[Level], dtype: torch.dtype) -> None:
        self.levels, self.dtype = levels, dtype

    def place(self, t: Tensor) -> int:
        """Returns the number of a time's level."""
        return round((1.0 - float(t)) * (len(self.levels) - 1))

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (alpha, sigma)."""
        level = self.levels[self.place(t)]
        return torch.tensor(level.alpha, dtype=self.dtype), torch.tensor(level.sigma, dtype=self.dtype)


class OurDenoiser(azula.denoise.Denoiser):
    """Our prior as one of its denoisers."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.schedule = case, OurLevels(case.levels, case.op.dtype)

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> azula.denoise.DiracPosterior:
        """Returns E[x0 | x_t]."""
        cur, nxt = self.case.levels[self.schedule.place(t) :][:2]
        x0, _ = self.case.prior.predict(x_t.reshape(-1, *self.case.op.in_shape), cur, nxt)
        return azula.denoise.DiracPosterior(mean=x0.flatten(1))


def with_azula(make: Callable[[Case, OurDenoiser, dict[str, Any]], azula.sample.Sampler]) -> Run:
    """Returns a run of one of its samplers; make(case, denoiser, its common arguments)."""

    def run(case: Case) -> Tensor:
        common = {"steps": len(case.levels) - 1, "silent": True, "dtype": torch.float64}
        sampler = make(case, OurDenoiser(case), common)
        return sampler(case.z().flatten(1)).reshape(1, *case.op.in_shape)

    return run


def flat(map_of: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """Returns a map of flat tensors. shape: of its argument."""
    return lambda u: map_of(u.reshape(-1, *shape)).flatten(1)


def known(case: Case) -> dict[str, Any]:
    """Returns y and A as its methods take them."""
    return {"y": case.measurement.y.flatten(1), "A": flat(case.op.A, case.op.in_shape)}


def azula_pgdm(case: Case, denoiser: OurDenoiser, common: dict[str, Any]) -> azula.sample.Sampler:
    """Returns PGDM with A^+, whatever the noise, at eta 1."""
    inverse = flat(case.op.pinv, case.op.out_shape)
    return azula.guidance.pgdm.PGDMSampler(denoiser, **known(case), A_inv=inverse, eta=1.0, **common)


def azula_dps(zeta: float) -> Callable[[Case, OurDenoiser, dict[str, Any]], azula.sample.Sampler]:
    """Returns DPS."""
    return lambda case, denoiser, common: azula.guidance.dps.DPSSampler(denoiser, **known(case), zeta=zeta, **common)


def azula_diffpir(eta: float, **knobs: Any) -> Callable[[Case, OurDenoiser, dict[str, Any]], azula.sample.Sampler]:
    """Returns DiffPIR in a DDIM sampler; a large eta draws all noise afresh."""

    def make(case: Case, denoiser: OurDenoiser, common: dict[str, Any]) -> azula.sample.Sampler:
        var_y = case.measurement.sigma_y**2
        proximal = azula.guidance.diffpir.DiffPIRDenoiser(denoiser, **known(case), var_y=var_y, **knobs)
        return azula.sample.DDIMSampler(proximal, eta=eta, **common)

    return make


def azula_mmps(case: Case, denoiser: OurDenoiser, common: dict[str, Any]) -> azula.sample.Sampler:
    """Returns MMPS, the covariance of x0 given x_t q^2 dD/dz, three iterations of its solver."""
    cov_y = azula.linalg.covariance.IsotropicCovariance(case.measurement.sigma_y**2)
    moments = azula.guidance.mmps.MMPSDenoiser(denoiser, **known(case), cov_y=cov_y, iterations=3)
    return azula.sample.DDPMSampler(moments, **common)


# deepinv: pictures on [0, 1] but in its DDRM, which has no scale of its own -------------------------------------------


def physics_of(case: Case, sigma: float) -> deepinv.physics.LinearPhysics:
    """Returns A with the noise that its methods ask for."""
    noise = deepinv.physics.GaussianNoise(sigma)
    return deepinv.physics.LinearPhysics(
        A=case.op.A, A_adjoint=case.op.At, img_size=case.op.in_shape, noise_model=noise
    )


def halved(case: Case) -> tuple[Tensor, deepinv.physics.LinearPhysics]:
    """Returns the measurement of (x + 1) / 2, and its physics."""
    ones = case.op.A(torch.ones(1, *case.op.in_shape, dtype=case.op.dtype))
    return (case.measurement.y + ones) / 2.0, physics_of(case, case.measurement.sigma_y / 2.0)


class HalvedDenoiser(torch.nn.Module):
    """Our prior on [0, 1], as one of its denoisers."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case

    def forward(self, x: Tensor, sigma: Tensor | float, **_: Any) -> Tensor:
        """Returns D of noise of that standard deviation on [0, 1]."""
        s = 2.0 * float(torch.as_tensor(sigma).flatten()[0])
        return (self.case.prior.denoised(2.0 * x - 1.0, s) + 1.0) / 2.0


def deepinv_diffpir(case: Case) -> Tensor:
    """Returns a picture by DiffPIR with its defaults, lambda 7 and zeta 0.1."""
    y, physics = halved(case)
    model = deepinv.sampling.DiffPIR(
        model=HalvedDenoiser(case), data_fidelity=deepinv.optim.data_fidelity.L2(), max_iter=len(case.levels) - 1
    )
    torch.manual_seed(7)
    return 2.0 * model(y, physics) - 1.0


def deepinv_dps(case: Case) -> Tensor:
    """Returns a picture by DPS with its defaults, weight 1, on its own levels."""
    y, physics = halved(case)
    noise = torch.Generator().manual_seed(7)
    model = deepinv.sampling.DPS(HalvedDenoiser(case), num_steps=len(case.levels), rng=noise)
    return 2.0 * model(y, physics, x_init=(1, *case.op.in_shape)).to(case.op.dtype) - 1.0


def modes_of(case: Case) -> deepinv.physics.DecomposablePhysics:
    """Returns A by its singular value decomposition, dense: small pictures alone; a mask at any size."""
    op, noise = case.op, deepinv.physics.GaussianNoise(case.measurement.sigma_y)
    if op.task in ("inpaint", "denoise"):
        kept = op.At(op.A(torch.ones(1, *op.in_shape, dtype=op.dtype)))
        return deepinv.physics.DecomposablePhysics(mask=kept, noise_model=noise)
    size = torch.Size(op.in_shape).numel()
    dense = op.A(torch.eye(size, dtype=op.dtype).reshape(size, *op.in_shape)).flatten(1).T
    U, s, Vt = torch.linalg.svd(dense, full_matrices=True)
    singulars = torch.zeros(1, size, dtype=op.dtype)
    singulars[0, : len(s)] = s
    pad = size - len(U)
    return deepinv.physics.DecomposablePhysics(
        U=lambda u: u[:, : len(U)] @ U.T,
        U_adjoint=lambda y: torch.nn.functional.pad(y.flatten(1) @ U, (0, pad)),
        V_adjoint=lambda x: x.flatten(1) @ Vt.T,
        V=lambda c: (c @ Vt).reshape(-1, *op.in_shape),
        mask=singulars,
        noise_model=noise,
    )


def deepinv_ddrm(case: Case) -> Tensor:
    """Returns a picture by DDRM on our levels, its noise as it comes, 1 / sqrt(2) of DDRM's."""
    physics = modes_of(case)
    model = deepinv.sampling.DDRM(
        lambda z, s: case.prior.denoised(z, float(s)),
        sigmas=[level.sigma / level.alpha for level in case.levels[:-1]],
        eps=0.0,
    )
    y = case.op.At(case.measurement.y) if case.op.task in ("inpaint", "denoise") else case.measurement.y
    torch.manual_seed(7)
    return model(y, physics)


# The same algorithm in both ------------------------------------------------------------------------------------------


@contextmanager
def drawing_as_ours(case: Case) -> Iterator[None]:
    """Has deepinv's DDRM draw what ours draws: per pixel, then into its modes, times the sqrt(2) that it divides by."""
    physics = modes_of(case)

    def randn_like(u: Tensor) -> Tensor:
        z = torch.randn(1, *case.op.in_shape, dtype=case.op.dtype)
        return 2.0**0.5 * physics.V_adjoint(z).reshape(u.shape)

    with patch("torch.randn_like", randn_like):
        yield


def same_ddrm(case: Case) -> Tensor:
    """Returns a picture by deepinv's DDRM with the noise of ours."""
    with drawing_as_ours(case):
        return deepinv_ddrm(case)


def without_noise(run: Run) -> Run:
    """Returns a run that is told that the measurement has no noise."""
    return lambda case: run(replace(case, measurement=replace(case.measurement, sigma_y=0.0)))


SAME: dict[str, tuple[Run, Run]] = {
    "pgdm, sigma_y = 0: azula": (without_noise(ours("pgdm")), with_azula(azula_pgdm)),
    "dps (authors), zeta 0.5: azula": (ours("dps", zeta=0.5), with_azula(azula_dps(0.5))),
    "diffpir, zeta 1, lambda 1: azula": (
        ours("diffpir", zeta=1.0, prior_weight=1.0),
        with_azula(azula_diffpir(1e30, lmbda=1.0, solver="cg", iterations=400)),
    ),
    "diffpir, zeta 1, lambda 1/4: azula": (
        ours("diffpir", zeta=1.0, prior_weight=0.25),
        with_azula(azula_diffpir(1e30, lmbda=0.25, solver="cg", iterations=400)),
    ),
    "ddrm, eta 0.85: deepinv, noise times sqrt(2)": (ours("ddrm", eta=0.85), same_ddrm),
}

PEERS: dict[str, Run] = {
    "plain": plain,
    "dmps": ours("dmps"),
    "pgdm": ours("pgdm"),
    "azula PGDM, A^+": with_azula(azula_pgdm),
    "dps (line search)": ours("dps"),
    "azula DPS, zeta 1": with_azula(azula_dps(1.0)),
    "deepinv DPS, weight 1": deepinv_dps,
    "diffpir": ours("diffpir"),
    "azula DiffPIR, lambda 10": with_azula(azula_diffpir(1.0)),
    "deepinv DiffPIR, lambda 7": deepinv_diffpir,
    "ddrm": ours("ddrm"),
    "deepinv DDRM": deepinv_ddrm,
    "azula MMPS": with_azula(azula_mmps),
}
ONLY_WITH_MODES = {"deepinv DDRM": ("inpaint", "denoise")}
"""Tasks of which an orthonormal V is known at any size."""


# Commands ------------------------------------------------------------------------------------------------------------


def middle(path: Path, side: int, dtype: torch.dtype) -> Tensor:
    """Returns the middle of a photograph, (1, 3, side, side)."""
    x = load_rgb(path).pixels[None]
    top, left = ((length - side) // 2 for length in x.shape[-2:])
    return x[..., top : top + side, left : left + side].to(dtype)


def case_of(name: str, x: Tensor, prior: Prior, nfe: int, sigma_y: float) -> Case:
    """Returns the measurement of a picture in a task, as `dmps eval` makes it."""
    op = build(name, resolve(name, OperatorOptions()), tuple(x.shape[1:]), dtype=x.dtype)
    y = degrade(x, op, sigma_y, seed=0, keys=[picture_key(x.float())])
    levels = prior.levels("ddpm", nfe, SPACING)
    return Case(measurement=Measurement(y, op, sigma_y), prior=Counted(prior), levels=levels)


def check(arguments: argparse.Namespace) -> None:
    """Prints the largest difference of two pictures of the same algorithm, on [-1, 1]."""
    prior = load_prior("natural", resolve_device("cpu")).prior
    prior.denoise.__self__.double()  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(1)
    x = 0.5 * torch.randn(1, 3, 16, 16, dtype=torch.float64, generator=generator).tanh()
    print("| the same in both | task | largest difference |\n|---|---|---|")
    for label, (mine, theirs) in SAME.items():
        for name in ("sr4", "deblur", "inpaint", "colorize"):
            case = case_of(name, x, prior, 10, 0.05)
            print(f"| {label} | {name} | {float((mine(case) - theirs(case)).abs().max()):.1e} |", flush=True)


def table(arguments: argparse.Namespace) -> None:
    """Prints a table a task."""
    prior, scorer = load_prior("natural", resolve_device("cpu")).prior, Scorer(["psnr", "lpips"])
    paths = [photo.path for photo in find_photos([arguments.folder])[: arguments.limit]]
    names = [name for name in PEERS if not arguments.only or any(part in name for part in arguments.only.split(","))]
    print("| task | | PSNR dB | LPIPS | CPU s | calls | back |\n|---|---|---|---|---|---|---|")
    for task_name in arguments.tasks.split(","):
        for name in names:
            if task_name not in ONLY_WITH_MODES.get(name, (task_name,)):
                continue
            rows = []
            for path in paths:
                x = middle(path, arguments.size, torch.float32)
                case = case_of(task_name, x, prior, arguments.nfe, task(task_name).sigma_y)
                started = time.process_time()
                restored = PEERS[name](case)
                seconds = time.process_time() - started
                scores = scorer.score(restored.detach().nan_to_num(0.0, 1e6, -1e6).float(), x)[0]
                rows.append([scores["psnr"], scores["lpips"], seconds, case.prior.calls, case.prior.backward])
            psnr, lpips, seconds, calls, back = map(fmean, zip(*rows, strict=True))
            print(
                f"| {task_name} | {name} | {psnr:.2f} | {lpips:.3f} | {seconds:.1f} | {calls:.0f} | {back:.0f} |",
                flush=True,
            )


def main() -> None:
    """Runs a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("check").set_defaults(run=check)
    of_table = commands.add_parser("table")
    of_table.set_defaults(run=table)
    of_table.add_argument("folder", type=Path)
    of_table.add_argument("--tasks", default="sr4,deblur,inpaint,colorize,denoise")
    of_table.add_argument("--size", type=int, default=128, help="side of the middle, px")
    of_table.add_argument("--limit", type=int, help="only the first N photographs by name")
    of_table.add_argument("--nfe", type=int, default=20, help="evaluations of those that are given levels")
    of_table.add_argument("--only", help="parts of names, with commas: those rows alone")
    arguments = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(1)
    packages = ", ".join(f"{name} {version(name)}" for name in ("azula", "deepinv", "torch"))
    print(f"{packages}\n")
    arguments.run(arguments)


if __name__ == "__main__":
    main()
