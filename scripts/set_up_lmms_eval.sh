#!/usr/bin/env bash
# Makes a virtual environment with fusionvl from this clone and lmms-eval, and without torchvision.
#
#     scripts/set_up_lmms_eval.sh VENV
#
# An environment of its own, because lmms-eval needs an older protobuf than constraints.txt pins. torchvision is among
# lmms-eval's requirements, but no task of the paper uses it, and one that does not fit torch's build breaks the import
# of transformers (docs/lmms_eval.md). PYTHON names the interpreter (default: python3).
set -euo pipefail

venv=${1:?usage: scripts/set_up_lmms_eval.sh VENV}
root=$(cd "$(dirname "$0")/.." && pwd)
own=$root/constraints-lmms-eval.txt
both=$(mktemp)
trap 'rm -f "$both"' EXIT

# All pins of constraints.txt but those that the other file overrules, and that file.
grep -v -x -i -f <(sed -n 's/^\([A-Za-z0-9_.-]*\)==.*/\1==.*/p' "$own") "$root/constraints.txt" >"$both"
cat "$own" >>"$both"

# Levenshtein: MathVista imports it, lmms-eval has it in an extra that brings much else. pytest: for tests/lmms_eval.
CONSTRAINTS=$both "$root/scripts/set_up.sh" "$venv" -e "${root}[easy-vqa,eval]" lmms-eval Levenshtein pytest
"$venv/bin/python" -m pip uninstall --quiet --yes torchvision

# MMMU's task looks for its typeface beside a file as if that were a folder, which Linux does not find; Pillow goes on to
# look in the folders of XDG_DATA_DIRS, which `fusionvl eval` sets.
mkdir -p "$venv/share/fonts"
cp "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lmms_eval/tasks/mmmu/arial.ttf" \
    "$venv/share/fonts/"

# torch as pinned, and no CUDA packages beside a torch that was built without CUDA.
"$venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import distributions

import torch

names = sorted({distribution.name.lower() for distribution in distributions()})
cuda = [name for name in names if name.startswith(("nvidia", "cuda", "triton"))]
if torch.version.cuda is None and cuda:
    sys.exit(f"error: torch {torch.__version__} needs no CUDA, but these came in: {', '.join(cuda)}")
print(f"torch {torch.__version__}, CUDA packages: {len(cuda)}")
PYTHON
