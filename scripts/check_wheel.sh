#!/usr/bin/env bash
# Proves that the wheel works by itself: complete, installed alone in a clean environment outside the repository,
# offline, with the model it carries.
#
#     scripts/check_wheel.sh dist/fusionvl-0.1.0-py3-none-any.whl
set -euo pipefail

wheel=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
repo=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}

"$python" - "$wheel" "$repo/src" <<'EOF'
import pathlib
import re
import sys
import zipfile

wheel, src = zipfile.ZipFile(sys.argv[1]), pathlib.Path(sys.argv[2])
packed = {name for name in wheel.namelist() if name.startswith("fusionvl/")}
present = {
    path.relative_to(src).as_posix()
    for path in (src / "fusionvl").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
}
problems = [f"in src but not in the wheel: {name}" for name in sorted(present - packed)]
problems += [f"in the wheel but not in src: {name}" for name in sorted(packed - present)]
for kind, pattern in {
    "weights": r"fusionvl/assets/.*\.safetensors",
    "chat templates": r"fusionvl/processing/chat_templates/.*\.jinja",
    "type marker": r"fusionvl/py\.typed",
}.items():
    if not any(re.fullmatch(pattern, name) for name in packed):
        problems.append(f"no {kind} in the wheel ({pattern})")
if problems:
    sys.exit("wheel check failed:\n  " + "\n  ".join(problems))
print(f"wheel: {len(packed)} files of the package, {pathlib.Path(sys.argv[1]).stat().st_size / 1e6:.1f} MB")
EOF

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$repo/scripts/set_up.sh" "$work/venv" "$wheel"

cd "$work" # outside the repository: nothing but the wheel can be imported
installed=$(venv/bin/python -m pip list --disable-pip-version-check --format=freeze)
if grep -iE '^torchvision==' <<<"$installed"; then
    echo "wheel check failed: torchvision came along; no dependency may bring it" >&2
    exit 1
fi
# A GPU machine has CUDA packages by right. CI has none, there they mean that torch was not taken as pinned.
if grep -iE '^(nvidia|cuda|triton)' <<<"$installed"; then
    if [ -n "${CI:-}" ]; then
        echo "wheel check failed: CUDA packages came along on a CPU machine" >&2
        exit 1
    fi
    echo "note: this environment holds a CUDA build of torch"
fi

venv/bin/python - <<'EOF'
from PIL import Image, ImageDraw

image = Image.new("RGB", (64, 64), (240, 240, 240))
ImageDraw.Draw(image).rectangle((16, 22, 46, 44), fill=(0, 0, 255))
image.save("rectangle.png")
EOF
question="what shape is in the image?"
answer=$(env -u PYTHONPATH HF_HUB_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" \
    venv/bin/fusionvl ask rectangle.png "$question")
if [ -z "${answer//[[:space:]]/}" ]; then
    echo "wheel check failed: 'fusionvl ask' printed no answer" >&2
    exit 1
fi
echo "$question -> $answer"
echo "wheel check passed"
