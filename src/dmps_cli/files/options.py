"""What can be said about files: which inputs, how their values are meant, how results are written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from dmps_cli.checks import Rule, check_fields, choice, option, real, whole
from dmps_cli.errors import UsageError
from dmps_cli.files.suffixes import DEEP, WITH_QUALITY, WRITTEN, written_as

RANGES = {"-1,1": (-1.0, 1.0), "0,1": (0.0, 1.0), "0,255": (0.0, 255.0)}
ALPHAS = ("keep", "white")
FORMATS = (*(name for name in WRITTEN if name != "bmp"), "same")
DEPTHS = (8, 16)
METADATA = ("keep", "none")
WHITE = real(0, 2**32, above=True)
RESTORED = "_restored"

WHITE_HELP = (
    "The value that is white: 4095 of 12 bits in a file of 16. Default: the largest of the file's type, 1 of floats."
)


def _name_part(value: str) -> str:
    if any(character in value for character in "/\0\\"):
        raise ValueError
    return value


_ENDS = choice(RANGES)
_RANGE = Rule(what=_ENDS.what, read=lambda value: _ENDS.read(value.replace(" ", "")))
_PART = Rule(what="a part of a file's name", read=_name_part)


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """Which files are inputs, beside those named."""

    recursive: bool = option(
        "Folders of folders: their tree is kept under -o; so are the folders of files named or listed, below the one "
        "that they share.",
        names=("--recursive",),
        default=False,
    )
    listed: Path | None = option("File of names of inputs, one a line.", "FILE", names=("--list",))


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How the values of an input are meant."""

    value_range: str | None = option(
        "What black and white are in .npy files without a sidecar; those that could be either are refused.",
        "|".join(RANGES),
        names=("--range",),
        rule=_RANGE,
    )
    white: float | None = option(WHITE_HELP, "N", rule=WHITE)
    alpha: str = option(
        "Transparent pictures: restore the colours and carry the opacity, or lay them over white.",
        "|".join(ALPHAS),
        default=ALPHAS[0],
        rule=choice(ALPHAS),
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def given(self) -> dict[str, Any]:
        """Returns what is said of values, for sidecars; nothing that is left as it is."""
        names = {"range": self.value_range, "white": self.white, "alpha": None if self.alpha == "keep" else self.alpha}
        return {name: value for name, value in names.items() if value is not None}

    @property
    def ends(self) -> tuple[float, float] | None:
        """What is black and what is white in arrays; None where it is open."""
        return None if self.value_range is None else RANGES[self.value_range.replace(" ", "")]


@dataclass(frozen=True, kw_only=True)
class WritingOptions:
    """How results are written; None leaves it to the input, or to the name of the output."""

    format: str | None = option(
        "Format of the results; same: that of each input. Default: that of -o, png for a folder.",
        "|".join(FORMATS),
        rule=choice(FORMATS),
    )
    quality: int | None = option(
        "Of JPEG (95 by default) and WebP (lossless by default), 1 to 100.", "N", rule=whole(1, 100)
    )
    suffix: str = option("What is added to an input's name for its result's.", "TEXT", default=RESTORED, rule=_PART)
    bit_depth: int | None = option(
        "Bits a channel. Default: those of the input, where the format holds them.",
        "|".join(map(str, DEPTHS)),
        rule=choice(DEPTHS),
    )
    metadata: str = option(
        "EXIF (set upright), colour profile and resolution of the input: carried, the picture in its own colours, or "
        "left out.",
        "|".join(METADATA),
        default="none",
        rule=choice(METADATA),
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.bit_depth == 16 and self.format not in (None, "same", *DEEP):
            raise UsageError(f"--format {self.format} holds 8 bits a channel; take png or tiff for --bit-depth 16")
        if self.quality is not None and self.format not in (None, "same", *WITH_QUALITY):
            raise UsageError(f"--quality belongs to jpg and webp; --format {self.format} loses nothing")

    @property
    def keeps_metadata(self) -> bool:
        """Whether the input's metadata are carried."""
        return self.metadata == "keep"

    def name(self, source: PurePath) -> tuple[str, str | None]:
        """Returns (the name of an input's result, what to say where it cannot be as asked)."""
        suffix, note = ".png", None
        if self.format == "same":
            suffix = source.suffix
            if written_as(source) is None:
                suffix, note = ".png", f"{source}: {source.suffix} is not written; its result is .png"
        elif self.format is not None:
            suffix = WRITTEN[self.format][0]
        return f"{source.stem}{self.suffix}{suffix}", note

    def check_target(self, target: PurePath) -> None:
        """Raises UsageError for an output's name that contradicts the options."""
        name = written_as(target)
        if self.format not in (None, "same", name):
            raise UsageError(f"-o {target} and --format {self.format} contradict each other; leave one out")
        if self.bit_depth == 16 and name is not None and name not in DEEP:
            raise UsageError(f"{target} holds 8 bits a channel; take .png or .tif for --bit-depth 16")
        if self.quality is not None and name is not None and name not in WITH_QUALITY:
            raise UsageError(f"--quality belongs to jpg and webp; {target} loses nothing")
