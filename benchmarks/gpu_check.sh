#!/bin/sh
# What a GPU does to the tool, in at most six minutes: one JSON object on stdout, what is in hand on stderr.
#   benchmarks/gpu_check.sh > gpu_check.json
#   benchmarks/gpu_check.sh --device cpu --tiny     # the same without a GPU, to try the script itself
# PYTHON: an interpreter with torch and the package's dependencies; for the part `tests` also pytest and scipy.
# Packages that were installed into .gpu_packages (pip install --target) are found as well.
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
PYTHONPATH="$root/src${PYTHONPATH:+:$PYTHONPATH}:$root/.gpu_packages" exec "${PYTHON:-python3}" "$root/benchmarks/gpu_check.py" "$@"
