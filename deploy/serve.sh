#!/bin/sh
# What the image runs: `vllm serve` on all addresses of its container, and so never without a key.
#
#     serve.sh MODEL [options of vllm serve]
#
# The key is in VLLM_API_KEY, or in the file that API_KEY_FILE names.
set -eu

if [ -n "${API_KEY_FILE:-}" ]; then
    VLLM_API_KEY=$(cat "$API_KEY_FILE")
    export VLLM_API_KEY
fi
if [ -z "${VLLM_API_KEY:-}" ]; then
    echo "No key: set VLLM_API_KEY, or API_KEY_FILE to the name of a file that holds it" >&2
    exit 2
fi
if [ $# -eq 0 ]; then
    echo "No model: name a folder or one of the hub, then options of vllm serve" >&2
    exit 2
fi
# At the end running answers have a minute: without it they are cut short, with status 200.
exec vllm serve "$@" --host 0.0.0.0 --port 8000 --shutdown-timeout 60
