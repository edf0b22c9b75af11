"""The library: pictures in, measured, restored, and out again. `dmps_cli` gives each of these by name.

Images are (B, C, H, W) on [-1, 1]; sigma_y is a standard deviation on that scale. Everything computes on the CPU
unless a device is named. A DmpsError says what a person can mend (a file, a name, a size); a ValueError or
TypeError what the caller's code has wrong.
"""
