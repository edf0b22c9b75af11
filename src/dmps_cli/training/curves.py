"""The log of a training as charts: loss and PSNR over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dmps_cli.report.plots import Chart, Series


def log_charts(rows: Sequence[Mapping[str, Any]], psnr_names: Sequence[str]) -> list[Chart]:
    """Returns the loss, and the PSNR of the validation. rows: of the log; psnr_names: its columns 'psnr_<sigma>'."""

    def line(name: str, label: str = "") -> Series:
        return Series(label=label, points=[(row["step"], row[name]) for row in rows if row.get(name) is not None])

    psnr = [line(name, f"sigma {name.partition('_')[2]}") for name in psnr_names]
    return [
        Chart(title="Loss", x_label="steps", y_label="loss", series=[line("loss")]),
        Chart(title="PSNR of the validation", x_label="steps", y_label="PSNR dB", series=psnr),
    ]
