"""The log of a training as a picture: loss and PSNR over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dmps_cli.report.plots import Point
from dmps_cli.report.sheets import FAINT, HAIRLINE, INK, PAPER

if TYPE_CHECKING:
    from PIL import Image, ImageDraw


COLOURS = ("#1f5fa8", "#b8452f", "#3c8a4a")
PANEL, MARGIN, TOP = (520, 340), 70, 50  # px
FONT = 15


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Lines over the steps. title: what is drawn, with its unit; lines: label -> points (step, value)."""

    title: str
    lines: Mapping[str, Sequence[Point]]


def draw(rows: Sequence[Mapping[str, Any]], psnr_names: Sequence[str]) -> Image.Image:
    """Returns two panels side by side on white, RGB. rows: of the log; psnr_names: its columns 'psnr_<sigma>'."""
    from PIL import Image, ImageDraw

    def points(name: str) -> list[Point]:
        return [(row["step"], row[name]) for row in rows if row.get(name) is not None and math.isfinite(row[name])]

    panels = [
        Panel(title="loss", lines={"": points("loss")}),
        Panel(
            title="PSNR of the validation, dB",
            lines={f"sigma {name.partition('_')[2]}": points(name) for name in psnr_names},
        ),
    ]
    sheet = Image.new("RGB", (len(panels) * (PANEL[0] + 2 * MARGIN), PANEL[1] + 2 * MARGIN), PAPER)
    for k, panel in enumerate(panels):
        _draw_panel(ImageDraw.Draw(sheet), panel, (MARGIN + k * (PANEL[0] + 2 * MARGIN), TOP))
    return sheet


def _draw_panel(pen: ImageDraw.ImageDraw, panel: Panel, corner: tuple[int, int]) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(FONT)
    left, top = corner
    right, bottom = left + PANEL[0], top + PANEL[1]
    pen.text((left, top - 12), panel.title, INK, font, anchor="ls")
    pen.text((right, bottom + 46), "steps", FAINT, font, anchor="rs")
    found = [point for line in panel.lines.values() for point in line]
    if found:
        (x_low, x_high), (y_low, y_high) = ((min(values), max(values)) for values in zip(*found, strict=True))
        room = (y_high - y_low) * 0.05 or abs(y_high) * 0.05 or 1.0  # or the extremes would lie on the frame
        x_high, y_low, y_high = max(x_high, x_low + 1e-9), y_low - room, y_high + room

        def place(point: Point) -> Point:
            x, y = (point[0] - x_low) / (x_high - x_low), (point[1] - y_low) / (y_high - y_low)
            return left + x * PANEL[0], bottom - y * PANEL[1]

        for value in ticks(y_low, y_high):
            y = place((x_low, value))[1]
            pen.line((left, y, right, y), HAIRLINE)
            pen.text((left - 8, y), f"{value:.4g}", FAINT, font, anchor="rm")
        for value in ticks(x_low, x_high, 4):
            pen.text((place((value, y_low))[0], bottom + 8), f"{value:.6g}", FAINT, font, anchor="ma")
        for k, (label, line) in enumerate(panel.lines.items()):
            colour = COLOURS[k % len(COLOURS)]
            places = [place(point) for point in line]
            if len(places) > 1:
                pen.line([coordinate for point in places for coordinate in point], colour, 2)
            for x, y in places[-1:]:
                pen.ellipse((x - 3, y - 3, x + 3, y + 3), colour)
            pen.text((left + 250 + 90 * k, top - 12), label, colour, font, anchor="ls")
    pen.rectangle((left, top, right, bottom), outline=FAINT)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about `count` round numbers (1, 2 or 5 times a power of ten apart) within low .. high."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
