#!/usr/bin/env bash
# A recipe of your own: egs2/TEMPLATE/legonn1/setup.sh egs2/<corpus>/legonn1
# run.sh, conf/ and local/ are copied, to be changed. path.sh, cmd.sh and db.sh are links. What is there stays.
set -euo pipefail
if [ $# -ne 1 ] || [[ "$1" == -* ]]; then
    echo "Usage: $0 egs2/<corpus>/legonn1" >&2
    exit 2
fi
here="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)"
mkdir -p "$1"
cd "$1"
if [ "$(cd ../.. && pwd -P)" != "$(cd "${here}/../.." && pwd -P)" ]; then
    echo "$0: $1 must be egs2/<corpus>/legonn1 of this repository: links lead to ../../TEMPLATE/legonn1" >&2
    exit 1
fi
for name in path.sh cmd.sh db.sh; do
    [ -e "${name}" ] || ln -s "../../TEMPLATE/legonn1/${name}" "${name}"
done
for name in run.sh conf local; do
    if [ -e "${name}" ]; then echo "$0: $1/${name} is there already, left as it is"; else cp -R "${here}/${name}" "${name}"; fi
done
echo "$1: read run.sh, then: cd $1 && CORPUS=DIR ./run.sh --input speech    (or --input text)"
