#!/usr/bin/env bash
# Makes a virtual environment and installs into it with the pinned versions, in one pip command.
#
#     scripts/set_up.sh VENV WHAT...        e.g.  scripts/set_up.sh .venv -e '.[dev]'
#
# WHAT goes to `pip install` as it is. PYTHON names the interpreter (default: python3), CONSTRAINTS another file of pins.
# Prints one line per package; the full log is VENV/install.log, shown when the installation fails.
set -euo pipefail

venv=$1
shift
python=${PYTHON:-python3}
constraints=${CONSTRAINTS:-$(cd "$(dirname "$0")/.." && pwd)/constraints.txt}

if ! command -v "$python" >/dev/null; then
    echo "error: '$python' not found. Install Python 3.11 or later, or name one: make PYTHON=/path/to/python3 ..." >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: fusionvl needs Python 3.11 or later, '$python' is $("$python" --version 2>&1)." \
        "Name a later one: make PYTHON=python3.12 ..." >&2
    exit 1
fi
if [ ! -x "$venv/bin/python" ]; then
    if ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        echo "error: '$python -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
fi

progress() { # one short line per package, as it comes
    awk '/^Collecting / { print "  " $1, $2 } /^Installing collected/ { print "  Installing them" }
        /^ERROR/ { print } { fflush() }'
}

echo "Installing into $venv (torch and transformers among others; a few minutes the first time)"
log=$venv/install.log
started=$SECONDS
# torch is pinned in this very command: a second command, or none of the pins, fetches gigabytes of CUDA packages.
if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
    -c "$constraints" "$@" 2>&1 |
    tee "$log" | progress; then
    tail -n 30 "$log" >&2
    echo "error: the installation failed; the full log is $log" >&2
    exit 1
fi
echo "Installed in $((SECONDS - started)) s"
