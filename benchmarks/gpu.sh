#!/usr/bin/env bash
# The benchmark of a GPU in one command of at most nine minutes, on a machine with torch and without a package registry:
#
#     benchmarks/gpu.sh RESULTS [WHEELS]      # RESULTS/gpu.md and RESULTS/gpu.json
#
# This package runs from the clone. What else the machine lacks it takes from the folder WHEELS, made beforehand where
# there is a registry: transformers (the package needs 5.20 or later) and, for int8 and int4, bitsandbytes. 17 MB:
#
#     pip download --no-deps --only-binary=:all: -d WHEELS transformers==5.23.0
#     pip download --no-deps --only-binary=:all: --platform manylinux_2_24_x86_64 -d WHEELS bitsandbytes==0.50.2
#     zip -qd WHEELS/bitsandbytes-*.whl '*cuda11*' '*cuda12*' '*rocm*' '*xpu*'      # leaves CUDA 13
set -euo pipefail

results=${1:?usage: benchmarks/gpu.sh RESULTS [WHEELS]}
wheels=${2:-}
repo=$(cd "$(dirname "$0")/.." && pwd)
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT

if [ -n "$wheels" ]; then
    for wheel in "$wheels"/*.whl; do
        python3 -m zipfile -e "$wheel" "$site"
    done
fi
PYTHONPATH="$site:$repo/src${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 \
    timeout --kill-after=5 535 python3 "$repo/benchmarks/gpu.py" --output "$results" "${@:3}"
