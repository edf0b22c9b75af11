#!/bin/sh
# Trains the larger network on this machine's GPU: sh FOLDER/benchmarks/train_gpu.sh --out OUT  (docs/training_gpu.md)
# FOLDER is what benchmarks/pack_gpu.py made, or a checkout together with --data FOLDER. Needs python3 with torch and
# Pillow, nothing installed.
set -eu
started=$(date +%s)
root=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$root:$root/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 \
    exec "${PYTHON:-python3}" -P -m benchmarks.train_gpu --started "$started" "$@"
