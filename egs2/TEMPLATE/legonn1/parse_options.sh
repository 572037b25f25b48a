#!/usr/bin/env bash
# Command-line options of a recipe script, by Kaldi's rules. Source it after the variables got their defaults:
#
#   stage=1; skip_train=false; help_message="Usage: $0 [--stage N]"
#   . parse_options.sh
#
# --foo-bar v and --foo_bar v set foo_bar=v, if the script defined foo_bar. A variable that is true or false accepts
# only these. --config FILE sources FILE before all other options. --help prints $help_message, then every option with
# the comment behind it (of the script $0). Options end at the first argument that is none. It and the rest stay in "$@".
# A name that the script has not is taken to espnet2_legonn/recipes/options.py, which knows ESPnet's names and the nearest.
# shellcheck disable=SC2154,SC1090

_po_fail() {
    echo "$0: $1" >&2
    echo "$0: run with --help to see the options" >&2
    exit 1
}
_po_answer=
_po_ask() { python3 -m espnet2_legonn.recipes.options "$@" 2>/dev/null; }

for ((_po_i = 1; _po_i <= $#; _po_i++)); do
    if [ "${!_po_i}" = "--config" ]; then
        _po_i=$((_po_i + 1))
        [ "${_po_i}" -le $# ] || _po_fail "option --config needs a file"
        [ -r "${!_po_i}" ] || _po_fail "--config ${!_po_i}: no such file"
        case "${!_po_i}" in
            */*) . "${!_po_i}" ;;
            *) . "./${!_po_i}" ;; # a bare name would be looked up in PATH
        esac
    fi
done

while [ $# -gt 0 ]; do
    case "$1" in
        --help | -h)
            printf '%s\n' "${help_message:-$0: no help_message is set}"
            if [ -f "$0" ]; then set | _po_ask help "$0" || true; fi
            exit 0
            ;;
        --config)
            shift 2
            continue
            ;;
        --*=*)
            _po_fail "write '${1%%=*} ${1#*=}' instead of '$1'"
            ;;
        --*) ;;
        *)
            break
            ;;
    esac
    _po_name="${1#--}"
    _po_name="${_po_name//-/_}"
    if ! [[ ${_po_name} =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]]; then _po_fail "unknown option $1"; fi
    if [ -z "${!_po_name+x}" ]; then
        if [ -f "$0" ] && _po_answer=$(_po_ask resolve "$0" "${_po_name}" "${2-}"); then
            if [ -z "${_po_answer}" ]; then # what it asks for is done anyway
                [ $# -ge 2 ] || _po_fail "option $1 needs a value"
                shift 2
                continue
            fi
            _po_name=${_po_answer}
        else
            _po_fail "${_po_answer:-unknown option $1}"
        fi
    fi
    [ $# -ge 2 ] || _po_fail "option $1 needs a value"
    case "${!_po_name}" in
        true | false)
            case "$2" in
                true | false) ;;
                *) _po_fail "option $1 accepts true or false, not '$2'" ;;
            esac
            ;;
    esac
    printf -v "${_po_name}" '%s' "$2"
    shift 2
done

unset -v _po_i _po_name _po_answer
unset -f _po_fail _po_ask
true # the status of `.`, whatever the last test said
