"""Whatever is written is read back: sidecars with all that they hold, exact floats, masks, pictures of 8 bits."""

from __future__ import annotations

import string
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmps_cli.files.images import encode, from_uint8, load, to_uint8
from dmps_cli.files.measurements import (
    OriginalFile,
    Sidecar,
    decode_mask,
    encode_mask,
    read_measurement,
    read_sidecar,
    write_measurement,
)

sides = st.integers(1, 20)
names = st.text(string.ascii_letters + string.digits + " _-.äß漢", min_size=1, max_size=20).map(
    lambda stem: f"a{stem}b"
)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
originals = st.builds(
    OriginalFile, file=names, sha256=hashes, width=sides, height=sides, crop=st.tuples(sides, sides, sides, sides)
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    stem=names,
    operator=st.dictionaries(st.text(), json_values, max_size=4),
    sigma_y=st.just(0.0) | st.floats(1e-9, 10.0),
    seed=st.integers(0, 2**63 - 1),
    shape=st.tuples(st.sampled_from([1, 3]), sides, sides),
    source=originals,
    pattern=st.none() | hashes,
    draws=st.integers(0, 99),
)
def test_a_measurement_on_disk_is_what_was_written(
    stem: str,
    operator: dict[str, object],
    sigma_y: float,
    seed: int,
    shape: tuple[int, int, int],
    source: OriginalFile,
    pattern: str | None,
    draws: int,
) -> None:
    """By each of its three names: the sidecar field by field, the floats bit by bit, the mask pixel by pixel."""
    generator = torch.Generator().manual_seed(draws)
    y, shown = torch.randn(shape, generator=generator), torch.rand(shape, generator=generator)
    mask = torch.rand(shape[1:], generator=generator) < 0.5
    with TemporaryDirectory() as folder:
        picture = Path(folder, f"{stem}.png")
        facts = {"operator": operator, "sigma_y": sigma_y, "seed": seed, "source": source, "pattern_sha256": pattern}
        written = write_measurement(
            picture, y, shown, overwrite=False, mask=mask, task="denoise", image_shape=shape, **facts
        )
        for path in (picture, picture.with_suffix(".npy"), picture.with_suffix(".json")):
            found, notes = read_sidecar(path)
            assert (found, notes) == (written, [])
            read = read_measurement(path, found)
            assert read.is_exact
            assert torch.equal(read.pixels[0], y)
        assert isinstance(found, Sidecar)
        assert found.mask is not None
        assert torch.equal(decode_mask(found.mask, shape[1:]), mask)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(height=sides, width=sides, seed=st.integers(0, 99), share=st.floats(0.0, 1.0))
def test_a_mask_is_what_was_written(height: int, width: int, seed: int, share: float) -> None:
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share
    assert torch.equal(decode_mask(encode_mask(mask)), mask)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp"])
@settings(max_examples=20, deadline=None, derandomize=True)
@given(channels=st.sampled_from([1, 3]), height=sides, width=sides, seed=st.integers(0, 99), levels=st.integers(1, 256))
def test_a_picture_of_8_bits_is_what_was_written(
    suffix: str, channels: int, height: int, width: int, seed: int, levels: int
) -> None:
    """Pixels to floats, to a file, to floats, to pixels: also pictures of few colours, which formats pack otherwise."""
    shape = (height, width) if channels == 1 else (height, width, 3)
    values = np.random.default_rng(seed).integers(0, levels, shape, dtype=np.uint8)
    with TemporaryDirectory() as folder:
        path = Path(folder, f"x{suffix}")
        path.write_bytes(encode(from_uint8(values), path))
        read = load(path).pixels
    np.testing.assert_array_equal(to_uint8(read if channels == len(read) else read[:1]), values)
    assert torch.equal(read, from_uint8(values).expand(len(read), -1, -1))
