#!/usr/bin/env bash
# Stage 1: the demo's corpus, written by a grammar and spoken by espeak-ng. Options: local/data.py --help
set -euo pipefail
exec python3 "$(dirname "$0")/data.py" "$@"
