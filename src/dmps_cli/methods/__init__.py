"""Posterior denoisers: a table of methods, their knobs, defaults, and one class each."""

from __future__ import annotations

LARGEST = 3.4e38
"""The largest number of float32, in which the methods compute."""
