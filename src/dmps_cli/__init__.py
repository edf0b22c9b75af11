"""Image restoration by diffusion-model posterior sampling (DMPS)."""

__version__ = "0.1.0"
