#!/usr/bin/env bash
# How jobs are run, sourced after path.sh. Choose with cmd_backend=... in the environment (or edit the default):
#   local    on this machine (run.pl)
#   stdout   as local, with all output on the terminal too
#   slurm    a Slurm cluster (slurm.pl). conf/slurm.conf, if there is one, says what its options mean on yours
#   sge | pbs | ssh   your own queue.pl, pbs.pl or ssh.pl with run.pl's command line: Kaldi's and ESPnet's fit. Put
#            them on PATH in local/path.sh, and their settings into conf/
#
#   train_cmd   jobs on CPUs: data preparation, statistics, averaging.  Its options: train_cmd_opts="--mem 4G"
#   cuda_cmd    training.  cuda_cmd_opts="--num_threads 8 --time 2-0"
#   decode_cmd  decoding.  decode_cmd_opts="--mem 8G --max-jobs-run 20"

export cmd_backend="${cmd_backend:-local}"

case "${cmd_backend}" in
    local) _launcher="run.pl" ;;
    stdout) _launcher="run.pl --show 1" ;;
    slurm) _launcher="slurm.pl" ;;
    sge) _launcher="queue.pl" ;;
    pbs) _launcher="pbs.pl" ;;
    ssh) _launcher="ssh.pl" ;;
    *)
        echo "cmd.sh: unknown cmd_backend=${cmd_backend}; choose local, stdout, slurm, sge, pbs or ssh" >&2
        return 1 ;;
esac

if ! command -v "${_launcher%% *}" >/dev/null; then
    echo "cmd.sh: ${_launcher%% *} of cmd_backend=${cmd_backend} is not on PATH; source path.sh first, and for" \
        "sge, pbs and ssh put your own ${_launcher%% *} on PATH in local/path.sh" >&2
    return 1
fi
if [ "${cmd_backend}" = slurm ] && ! command -v sbatch >/dev/null; then
    echo "cmd.sh: cmd_backend=slurm, but sbatch is not on PATH: is this a machine of the cluster?" >&2
    return 1
fi

export train_cmd="${_launcher}${train_cmd_opts:+ ${train_cmd_opts}}"
export cuda_cmd="${_launcher}${cuda_cmd_opts:+ ${cuda_cmd_opts}}"
export decode_cmd="${_launcher}${decode_cmd_opts:+ ${decode_cmd_opts}}"
unset -v _launcher
