"""The table of methods and their defaults; names only, no torch until one is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.priors import Prior
    from dmps_cli.sampling import Denoiser

    Build = Callable[[Prior, LinearOperator, Tensor, float, float, Mapping[str, Any]], Denoiser]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of METHODS. build(prior, op, y, sigma_y, eta, knobs) wraps the prior into a posterior denoiser."""

    help: str
    knobs: tuple[str, ...]
    build: Build


def _dmps(
    prior: Prior, op: LinearOperator, y: Tensor, sigma_y: float, eta: float, knobs: Mapping[str, Any]
) -> Denoiser:
    from dmps_cli.methods.dmps import Dmps, DmpsOptions

    return Dmps(prior, op, y, sigma_y, eta, DmpsOptions(**knobs))


METHODS = {
    "dmps": Method(
        help="closed-form likelihood score, no back-propagation (Meng & Kabashima 2024)",
        knobs=("weight", "score_at", "cap"),
        build=_dmps,
    ),
}

# The one table of defaults: (method, sampler) -> evaluations and knobs. The numbers and how they were
# chosen: docs/defaults.md.
DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("dmps", "ddpm"): {"nfe": 50, "weight": 1.75, "score_at": "x_t", "cap": 1.0},
    ("dmps", "flow"): {"nfe": 50, "weight": 2.0, "score_at": "x_t", "cap": 1.0},
}
DEFAULT_METHOD, DEFAULT_SAMPLER = "dmps", "flow"
