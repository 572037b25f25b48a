#!/usr/bin/env bash
# Check every shell script of the project with shellcheck. Usage: tools/shellcheck.sh [folder]
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"
PATH="$PWD/.venv/bin:$PATH"
if ! command -v shellcheck >/dev/null; then
    echo "shellcheck is not installed: run \`make setup\`" >&2
    exit 1
fi
mapfile -d '' scripts < <(find . \
    \( -name .git -o -name .venv -o -name exp -o -name dump -o -name downloads -o -path ./site -o -path ./.docs \) -prune -o \
    \( -name '*.sh' -o -path './.ci/run' \) -type f -print0 | sort -z)
# Kaldi-style scripts source their path.sh and options at run time: follow what can be found, do not ask for the rest.
shellcheck --severity=warning --external-sources --source-path=SCRIPTDIR "${scripts[@]}"
echo "shellcheck: ${#scripts[@]} scripts pass"
