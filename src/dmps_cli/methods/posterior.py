"""What all methods share: a prior and a measurement, made one posterior denoiser."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from dmps_cli.levels import Level
from dmps_cli.methods.solver import TruncatedSolver
from dmps_cli.operators.base import Correction
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import Prior
from dmps_cli.sampling import Denoiser, Fresh


class Posterior(Denoiser):
    """A prior informed by a measurement: the denoiser that the sampling loop is given."""

    def __init__(self, prior: Prior, measurement: Measurement) -> None:
        measurement = measurement.whitened()
        assert isinstance(measurement.sigma_y, float | int)
        self.prior, self.measurement = prior, measurement
        self.y, self.op, self.sigma_y = measurement.y, measurement.op, float(measurement.sigma_y)

    @cached_property
    def solver(self) -> TruncatedSolver:
        """This run's own, for an operator whose solves are iterated: it goes on from step to step."""
        return TruncatedSolver(self.op, len(self.y))

    @cached_property
    def correction(self) -> Correction:
        """(x, noise_var, scale) -> A^T (noise_var I + scale A A^T)^-1 (y - A x): exact, or by this run's solver."""
        if not self.op.is_iterated:
            return self.op.correction(self.y)

        def residual_to_image(x: Tensor, noise_var: float, scale: float) -> Tensor:
            return self.op.At(self.solver(self.y - self.op.A(x), noise_var, scale))

        return residual_to_image

    def start(self, z: Tensor, level: Level) -> Tensor:
        """Returns the state at the first level, from standard normal noise z (B, C, H, W).

        z itself, where levels begin.
        """
        return z

    @abstractmethod
    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns (estimate of E[x0 | x_t, y], standard deviation of the step's noise, None for the ancestral one)."""


class OwnStep(Posterior):
    """A method that makes its step itself, in place of `reverse_step`: it chooses the noise of each mode."""

    draws_on_ode = True

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns the prior's own: the measurement enters in the step, which draws no learned noise."""
        return self.prior.predict(x_t, cur, nxt)[0], None

    def step(self, x_t: Tensor, cur: Level, nxt: Level, eta: float, fresh: Fresh) -> Tensor:
        """Returns `moved` from the prediction and its eps.

        Noise is drawn on an ODE too, and none is left at the clean end.
        """
        x0, _ = self.predict(x_t, cur, nxt)
        return self.moved(
            x0, (x_t - cur.alpha * x0) / cur.sigma, fresh if nxt.sigma > 0.0 else torch.zeros_like, cur, nxt
        )

    @abstractmethod
    def moved(self, x0: Tensor, eps: Tensor, fresh: Fresh, cur: Level, nxt: Level) -> Tensor:
        """Returns the sample at level nxt. x0: as predicted; eps = (x_t - alpha x0) / sigma; fresh: draws noise."""


class ModewisePosterior(OwnStep):
    """The step of DDRM and DDNM+, which treat every mode by itself: what they share.

    eta: stochasticity of the modes that nothing is known of. Raises ValueError for an operator without `modes`.
    """

    def __init__(self, prior: Prior, measurement: Measurement, *, eta: float) -> None:
        super().__init__(prior, measurement)
        op = self.op
        if op.modes is None:
            raise ValueError(f"{type(op).__name__} has no modes")
        self.eta, self.modes = eta, op.modes
        self.yh = self.modes.Ut(self.y)  # U^T y; the papers' y-bar is this divided by s
        s = torch.where(self.modes.measured, self.modes.singulars, torch.inf)
        self.inverse = 1.0 / s  # of measured modes, 0 of the others
        self.spread = self.sigma_y * self.inverse  # ss = sigma_y / s

    def informed_start(self, z: Tensor, level: Level) -> Tensor:
        """Returns a state with the measurement where it is less noisy than the level: the start of DDRM.

        z: standard normal.
        """
        q, modes_of_z = level.sigma / level.alpha, self.modes.Vt(z)
        known = self.yh * self.inverse + (q**2 - self.spread**2).clamp_min(0.0).sqrt() * modes_of_z
        return level.alpha * self.replaced(q * z, torch.where(self.spread < q, known, q * modes_of_z))

    def replaced(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """Returns x with its measured modes replaced. x: (B, C, H, W); coefficients: (B, *spectrum)."""
        return x + self.modes.V(torch.where(self.modes.measured, coefficients - self.modes.Vt(x), 0.0))


def pulled_back(
    prior: Prior, x_t: Tensor, cur: Level, nxt: Level, direction: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Returns (x0, standard deviation, (d x0 / d x_t)^T direction(x0)): one call of the network, and back through it.

    Through a clip of x0 too, where a prior has one: a clipped pixel passes nothing back. Gradients are enabled here,
    whatever the caller has, and of nothing but x_t. direction(x0): like x0. Items of a batch stay apart, as they do in
    the network.
    """
    with torch.enable_grad():
        leaf = x_t.detach().requires_grad_()
        x0, std = prior.predict(leaf, cur, nxt)
    (gradient,) = torch.autograd.grad(x0, leaf, direction(x0.detach()))
    return x0.detach(), None if std is None else std.detach(), gradient
