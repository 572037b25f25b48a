#!/usr/bin/env bash
# Environment of a recipe. Source it from the recipe's folder (egs2/<corpus>/legonn1). Works as link and as copy.
# Your own additions go into local/path.sh, which is sourced last.

MAIN_ROOT="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../.." && pwd)"
export MAIN_ROOT

# An environment that is already active wins over the repository's own.
if [ -z "${VIRTUAL_ENV:-}" ] && [ -f "${MAIN_ROOT}/.venv/bin/activate" ]; then
    # shellcheck source=/dev/null
    . "${MAIN_ROOT}/.venv/bin/activate"
fi

export PATH="${MAIN_ROOT}/egs2/TEMPLATE/legonn1:${PATH}"

# Asked from another folder: Python finds a package in the current one even when it is not installed.
if ! (cd / && python3 -c 'import importlib.util as u, sys; sys.exit(u.find_spec("espnet2_legonn") is None)'); then
    export PYTHONPATH="${MAIN_ROOT}${PYTHONPATH:+:${PYTHONPATH}}"
fi
if [ -d "${MAIN_ROOT}/local/legonn_corpora" ]; then # readers of corpora, which the installed package has not
    export PYTHONPATH="${MAIN_ROOT}/local${PYTHONPATH:+:${PYTHONPATH}}"
fi

# A script that a signal ends takes along what it waits for, a training for instance: bash alone would leave it running.
# What runs in the background stays, as it does after any other end.
_started_by() { # PID: what it started, what that started, and so on
    local children child
    for children in "/proc/$1/task"/*/children; do
        for child in $(cat "${children}"); do
            echo "${child}"
            _started_by "${child}"
        done
    done
}
_end_what_runs() {
    local job child waited=" "
    for job in $(jobs | sed -n '/&$/!s/^\[\([0-9]*\)\].*/\1/p'); do # those in the background end in &
        waited+="$(jobs -l "%${job}" | tr -cs 0-9 ' ') "
    done
    for child in $(cat "/proc/$$/task/$$/children"); do
        if [[ "${waited}" = *" ${child} "* ]]; then
            # shellcheck disable=SC2046
            kill -TERM "${child}" $(_started_by "${child}")
        fi
    done
}
if [[ $- != *i* ]]; then trap '_end_what_runs 2>/dev/null || true' EXIT; fi

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # jobs run in parallel. Threads inside them would fight
export PYTHONIOENCODING=UTF-8
export LC_ALL=C # sort by bytes, as Kaldi's tables are sorted
export NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-^lo,docker,virbr,vmnet,vboxnet}"

if [ -f local/path.sh ]; then
    # shellcheck source=/dev/null
    . local/path.sh
fi
