"""Image restoration by diffusion-model posterior sampling (DMPS, Meng & Kabashima, ACML 2024).

    import dmps_cli as dmps

    x = dmps.load_image("photo.png")
    A = dmps.operator("sr4", x.shape[1:])
    m = dmps.degrade(x, A, sigma_y=0.05, seed=0)
    prior = dmps.load_prior("natural")
    x_hat = dmps.restore(m, prior)
    dmps.save_image(x_hat, "restored.png")

Everything is imported when it is first used, so that `import dmps_cli` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmps_cli import methods
    from dmps_cli.api.files import degrade_file, restore_file
    from dmps_cli.api.tensors import degrade, load_image, load_prior, operator, restore, sample, save_image
    from dmps_cli.errors import DmpsError
    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.operators.measurement import Measurement
    from dmps_cli.priors import DDPMPrior, DenoiserPrior, FlowPrior, Prior

__version__ = "0.1.0"
__all__ = [
    "DDPMPrior",
    "DenoiserPrior",
    "DmpsError",
    "FlowPrior",
    "LinearOperator",
    "Measurement",
    "Prior",
    "__version__",
    "degrade",
    "degrade_file",
    "load_image",
    "load_prior",
    "methods",
    "operator",
    "restore",
    "restore_file",
    "sample",
    "save_image",
]
_HOMES = {
    **dict.fromkeys(
        ("degrade", "load_image", "load_prior", "operator", "restore", "sample", "save_image"), "api.tensors"
    ),
    **dict.fromkeys(("degrade_file", "restore_file"), "api.files"),
    **dict.fromkeys(("DDPMPrior", "DenoiserPrior", "FlowPrior", "Prior"), "priors"),
    "DmpsError": "errors",
    "LinearOperator": "operators.base",
    "Measurement": "operators.measurement",
}


def __getattr__(name: str) -> Any:
    if name == "methods":
        return import_module(f"{__name__}.methods")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
