"""Metrics of one restoration after another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from dmps_cli.errors import NumericsError, WeightsError, unknown_name
from dmps_cli.metrics.lpips import DEFAULT_LPIPS_NET, LPIPS_NETS
from dmps_cli.metrics.protocol import Protocol, measured
from dmps_cli.metrics.table import METRICS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.metrics.table import Value


class Scorer:
    """The metrics of that name, with the networks they need: loaded when first used, then kept.

    Raises UsageError for an unknown metric or LPIPS net.
    """

    def __init__(
        self,
        names: Iterable[str] = tuple(METRICS),
        *,
        lpips_net: str = DEFAULT_LPIPS_NET,
        device: torch.device | str = "cpu",
    ) -> None:
        self.wanted = tuple(names)
        for name in self.wanted:
            if name not in METRICS:
                raise unknown_name("metric", name, METRICS)
        if lpips_net not in LPIPS_NETS:
            raise unknown_name("LPIPS net", lpips_net, LPIPS_NETS)
        self.lpips_net = lpips_net
        self._device = device

    @cached_property
    def _loaded(self) -> tuple[dict[str, Value], dict[str, str]]:
        """(values by name, reasons by the name of a metric that cannot be had)."""
        import torch

        values, missing = {}, {}
        for name in self.wanted:
            try:
                values[name] = METRICS[name].build(self.lpips_net, torch.device(self._device))
            except WeightsError as exc:
                missing[name] = str(exc)
        return values, missing

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that `score` returns: those wanted and not missing."""
        return tuple(self._loaded[0])

    @property
    def missing(self) -> dict[str, str]:
        """Metric -> why it cannot be had (a file to fetch). It has no column; nothing takes its place."""
        return dict(self._loaded[1])

    def protocol(
        self, rows: Sequence[Mapping[str, object]], sigmas: Iterable[float], images: Iterable[str], channels: int = 3
    ) -> Protocol:
        """Returns how a table of these rows came about. sigmas: on [-1, 1], in any order, repeated or not."""
        return Protocol(
            metrics=measured(self.names, rows),
            lpips_net=self.lpips_net,
            sigma_y=tuple(sorted(set(sigmas))),
            images=tuple(images),
            channels=channels,
        )

    def score(self, x: Tensor, reference: Tensor) -> list[dict[str, float]]:
        """Returns a dict of finite numbers per image, keys as in `names`, without metrics that need a larger picture.

        x, reference: (B, C, H, W) on [-1, 1], C = 1 or 3. Raises NumericsError for NaN or infinity.
        """
        if x.shape != reference.shape or x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(
                f"x {tuple(x.shape)} and reference {tuple(reference.shape)} must be equal (B, 1 or 3, H, W)"
            )
        return [self._score_one(_alone(x, i), _alone(reference, i)) for i in range(len(x))]

    def _score_one(self, x: Tensor, reference: Tensor) -> dict[str, float]:
        side = min(x.shape[2:])
        fitting = {n: value for n, value in self._loaded[0].items() if side >= METRICS[n].min_px(self.lpips_net)}
        return {name: value(x, reference) for name, value in fitting.items()}


def _alone(x: Tensor, index: int) -> Tensor:
    """Returns image `index` as (1, C, H, W), clipped, in memory of its own: the layout of the batch must not matter."""
    image = x[index : index + 1]
    if not image.isfinite().all():
        raise NumericsError(
            f"picture {index + 1} of {len(x)} to be scored holds NaN or infinity; it has no PSNR or SSIM"
        )
    return image.float().clamp(-1, 1).contiguous()
