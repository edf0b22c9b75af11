"""Pictures that were restored by whatever program, measured against the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli import __version__
from dmps_cli.checks import check_fields, option, whole
from dmps_cli.errors import DmpsError, InputError
from dmps_cli.evaluation.pairs import Pair, pairs
from dmps_cli.files.atomic import atomic_write, check_writable, refuse_existing
from dmps_cli.metrics.lpips import DEFAULT_LPIPS_NET
from dmps_cli.metrics.protocol import Protocol, measured, size_notes
from dmps_cli.metrics.scorer import Scorer

if TYPE_CHECKING:
    from torch import Tensor


LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
BLACK = 16.0 / 255
"""Y = 16/255 + (65.481 R + 128.553 G + 24.966 B) / 255 of R, G, B on [0, 1]: ITU-R BT.601 in studio range, as MATLAB's
rgb2ycbcr has it, by which super-resolution is usually measured."""


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """What of two pictures is compared."""

    y_channel: bool = option(
        "PSNR and SSIM of the luma Y (BT.601, 16 to 235), as papers on super-resolution have it; LPIPS of colour.",
        names=("--y-channel",),
        default=False,
    )
    crop: int = option("Cut so many px off each side first.", "PX", default=0, rule=whole(0, unit="px"))
    matched_only: bool = option(
        "Skip pictures without a partner, and say how many; otherwise they are an error.",
        names=("--matched-only",),
        default=False,
    )

    def __post_init__(self) -> None:
        check_fields(self)


def luma(x: Tensor) -> Tensor:
    """Returns Y of BT.601, (B, 1, H, W) on [-1, 1] as the scale of [0, 1], of RGB (B, 3, H, W) on [-1, 1].

    A grey picture stands for three equal channels.
    """
    red, green, blue = ((x.clamp(-1, 1).double() + 1) / 2).expand(-1, 3, -1, -1).unbind(1)
    y = BLACK + LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return (2 * y - 1).unsqueeze(1)


@dataclass(frozen=True, kw_only=True)
class PairScorer:
    """Scores of one pair of files."""

    options: ScoringOptions = field(default_factory=ScoringOptions)
    lpips_net: str = DEFAULT_LPIPS_NET

    @cached_property
    def colour(self) -> Scorer:
        """Of what is measured in colour: everything, or LPIPS beside the Y channel."""
        return (
            Scorer(["lpips"], lpips_net=self.lpips_net) if self.options.y_channel else Scorer(lpips_net=self.lpips_net)
        )

    @cached_property
    def grey(self) -> Scorer | None:
        """Of what is measured on Y; None where nothing is."""
        return Scorer(["psnr", "ssim"]) if self.options.y_channel else None

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics, in the order of a table."""
        return (*(self.grey.names if self.grey else ()), *self.colour.names)

    def score(self, pair: Pair) -> tuple[dict[str, float], int]:
        """Returns (metric -> value, channels that were compared).

        Raises InputError for pictures of different sizes, or smaller than what is cut off.
        """
        from dmps_cli.files.images import load_up_to

        x, truth = (load_up_to(path, 3).pixels[None] for path in (pair.restored, pair.truth))
        if x.shape[2:] != truth.shape[2:]:
            sizes = " and ".join(f"{t.shape[3]} x {t.shape[2]} px" for t in (x, truth))
            raise InputError(f"{pair.restored} and {pair.truth} are of different sizes, {sizes}")
        channels = max(x.shape[1], truth.shape[1])  # a grey picture stands for three equal channels
        x, truth = (self._inside(t.expand(-1, channels, -1, -1), pair.name) for t in (x, truth))
        found = dict(self.grey.score(luma(x).float(), luma(truth).float())[0]) if self.grey else {}
        return {**found, **self.colour.score(x, truth)[0]}, channels

    def _inside(self, x: Tensor, name: str) -> Tensor:
        cut = self.options.crop
        if 2 * cut >= min(x.shape[2:]):
            raise InputError(f"{name} is {x.shape[3]} x {x.shape[2]} px; --crop {cut} leaves nothing of it")
        return x[..., cut : x.shape[2] - cut, cut : x.shape[3] - cut]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What came out: a row per pair, with the folder that it is of as its method. unmatched: without a partner."""

    rows: list[dict[str, Any]]
    scorer: PairScorer
    channels: int
    truth: Path
    unmatched: Sequence[str] = ()
    failures: Sequence[Mapping[str, str]] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that have a column."""
        return measured(self.scorer.names, self.rows)

    @cached_property
    def protocol(self) -> Protocol:
        """How the numbers came about."""
        options = self.scorer.options
        return Protocol(
            metrics=self.metrics,
            lpips_net=self.scorer.lpips_net,
            sigma_y=(),
            images=tuple(dict.fromkeys(row["image"] for row in self.rows)),
            channels=self.channels,
            y_channel=options.y_channel,
            prepared=f"{options.crop} px cut off each side" if options.crop else "",
        )

    @cached_property
    def summary(self) -> list[dict[str, Any]]:
        """Means, standard deviations and intervals of each folder."""
        from dmps_cli.report.statistics import summaries

        return [*summaries(self.rows, ("method",), self.metrics)]

    @property
    def notes(self) -> list[str]:
        """What is missing."""
        notes = [f"{len(self.unmatched)} pictures without a partner are skipped"] if self.unmatched else []
        notes += [f"not scored: {', '.join(failure['input'] for failure in self.failures)}"] if self.failures else []
        return notes + size_notes(self.scorer.names, self.rows, self.scorer.lpips_net)

    def described(self) -> dict[str, Any]:
        """Returns for the JSON what was compared."""
        return {
            "version": __version__,
            "command": "score",
            "truth": str(self.truth),
            "unmatched": [*self.unmatched],
            "failures": [*self.failures],
        }

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yields (name, content) of the tables."""
        from dmps_cli.report.writers import table_files

        for name, text in table_files(
            self.rows, self.summary, self.protocol, self.described(), notes=self.notes
        ).items():
            yield name, text.encode(errors="backslashreplace")

    def write(self, out: Path, *, overwrite: bool) -> None:
        """Writes the tables into a folder. Raises OutputError."""
        for name, data in self.files():
            atomic_write(out / name, data, overwrite=overwrite)


def check_tables(out: Path, *, overwrite: bool) -> None:
    """Raises OutputError where tables could not be written, before anything is measured."""
    from dmps_cli.report.writers import LATEX, MARKDOWN, TABLES

    check_writable(out)
    if not overwrite:
        for name in (*TABLES, MARKDOWN, LATEX):
            refuse_existing(out / name)


def score_folders(
    restored: Sequence[Path],
    truth: Path,
    scorer: PairScorer,
    *,
    on_failure: Callable[[str, DmpsError], None],
    on_pair: Callable[[], None] = lambda: None,
) -> Scores:
    """Returns the scores of folders (or files) of restored pictures against that of the truths, matched by name.

    A pair that cannot be scored is given to on_failure, and the others go on. Raises InputError as `pairs`.
    """
    work: list[tuple[str, Pair]] = []
    unmatched: list[str] = []
    for folder in restored:
        found, alone = pairs(folder, truth, matched_only=scorer.options.matched_only)
        work += [(str(folder), pair) for pair in found]
        unmatched += alone
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    channels = 1
    for label, pair in work:
        try:
            values, seen = scorer.score(pair)
        except DmpsError as exc:
            on_failure(str(pair.restored), exc)
            failures.append({"input": str(pair.restored), "error": str(exc)})
        else:
            channels = max(channels, seen)
            rows.append({"image": pair.name, "method": label, **values})
        on_pair()
    return Scores(
        rows=rows,
        scorer=scorer,
        channels=channels,
        truth=truth,
        unmatched=[*dict.fromkeys(unmatched)],
        failures=failures,
    )
