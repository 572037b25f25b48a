#!/usr/bin/env bash
# How jobs are run; sourced after path.sh. Choose with cmd_backend=... in the environment (or edit the default):
#   local   on this machine, by run.pl in this folder
#   stdout  as local, but output on the terminal
#   sge | pbs | slurm | ssh   a cluster
# Only `local` is complete here. The others call stdout.pl, queue.pl, pbs.pl, slurm.pl or ssh.pl with run.pl's command
# line: put your own (Kaldi's and ESPnet's fit) on PATH in local/path.sh, and their settings into conf/.
#
#   train_cmd   jobs on CPUs: data preparation, statistics, scoring
#   cuda_cmd    training
#   decode_cmd  decoding

cmd_backend="${cmd_backend:-local}"

case "${cmd_backend}" in
    local)
        export train_cmd="run.pl" cuda_cmd="run.pl" decode_cmd="run.pl" ;;
    stdout)
        export train_cmd="stdout.pl" cuda_cmd="stdout.pl" decode_cmd="stdout.pl" ;;
    sge)
        export train_cmd="queue.pl" cuda_cmd="queue.pl" decode_cmd="queue.pl" ;;
    pbs)
        export train_cmd="pbs.pl" cuda_cmd="pbs.pl" decode_cmd="pbs.pl" ;;
    slurm)
        export train_cmd="slurm.pl" cuda_cmd="slurm.pl" decode_cmd="slurm.pl" ;;
    ssh)
        export train_cmd="ssh.pl" cuda_cmd="ssh.pl" decode_cmd="ssh.pl" ;;
    *)
        echo "cmd.sh: unknown cmd_backend=${cmd_backend}; choose local, stdout, sge, pbs, slurm or ssh" >&2
        return 1 ;;
esac

# shellcheck disable=SC2154  # exported by every branch above
if ! command -v "${train_cmd%% *}" >/dev/null; then
    echo "cmd.sh: ${train_cmd} of cmd_backend=${cmd_backend} is not on PATH; source path.sh first, and for" \
        "anything but local put your own ${train_cmd} on PATH in local/path.sh" >&2
    return 1
fi
