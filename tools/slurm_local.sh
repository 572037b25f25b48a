#!/usr/bin/env bash
# Runs a command with a Slurm of its own: one controller and a few node daemons on this machine, in a temporary folder,
# stopped and removed when the command ends. For tests (`make test-slurm`); needs Debian's slurm-wlm and munge.
# usage: tools/slurm_local.sh COMMAND [ARGUMENT...]          NODES=2 CORES=2 set the size (more than one node: as root)
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
PATH="${PATH}:/usr/local/sbin:/usr/sbin:/sbin"
missing=()
for program in sbatch slurmctld slurmd munged mungekey; do
    command -v "${program}" >/dev/null || missing+=("${program}")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "tools/slurm_local.sh: not found: ${missing[*]}; install Debian's slurm-wlm and munge" >&2
    exit 1
fi

nodes=${NODES:-1}
cores=${CORES:-2}
memory=$(awk '/MemTotal/ {print int($2 / 1024 / 2)}' /proc/meminfo)
user=$(id -un)
folder=$(mktemp -d /tmp/slurm_local.XXXXXX) # short: the path of a socket has at most 107 letters
chmod 755 "${folder}"
export SLURM_CONF=${folder}/slurm.conf

stop() {
    local file pid pids=()
    scancel --user "${user}" 2>/dev/null || true
    for file in "${folder}"/*.pid; do
        if [ -f "${file}" ]; then pids+=("$(cat "${file}")"); fi
    done
    for pid in "${pids[@]}"; do kill "${pid}" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do
        for _ in $(seq 100); do kill -0 "${pid}" 2>/dev/null || break; sleep 0.1; done
    done
    rm -rf "${folder}"
}
trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# One GPU a node that is none: the device of nothing, so that --gres=gpu:1 is granted.
{
    echo "ClusterName=test"
    echo "SlurmctldHost=$(hostname -s)(127.0.0.1)"
    echo "SlurmUser=${user}"
    echo "SlurmdUser=${user}"
    echo "SlurmctldPort=$(port)"
    echo "SlurmctldPidFile=${folder}/slurmctld.pid"
    echo "SlurmctldLogFile=${folder}/slurmctld.log"
    echo "SlurmdPidFile=${folder}/slurmd.%n.pid"
    echo "SlurmdLogFile=${folder}/slurmd.%n.log"
    echo "SlurmdSpoolDir=${folder}/spool.%n"
    echo "StateSaveLocation=${folder}/state"
    echo "AuthInfo=socket=${folder}/munge.socket"
    echo "ProctrackType=proctrack/linuxproc" # no cgroups
    echo "TaskPlugin=task/none"
    echo "SelectType=select/cons_tres"
    echo "SelectTypeParameters=CR_Core"
    echo "SlurmdParameters=config_overrides" # as many cores as asked for
    echo "SchedulerParameters=sched_interval=1"
    echo "KillWait=2"
    echo "GresTypes=gpu"
    for n in $(seq "${nodes}"); do
        echo "NodeName=node${n} NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$(port) CPUs=${cores} RealMemory=${memory} Gres=gpu:1"
    done
    echo "PartitionName=all Nodes=ALL Default=YES"
} >"${SLURM_CONF}"
echo "Name=gpu File=/dev/null Flags=nvidia_gpu_env" >"${folder}/gres.conf"
mkdir -m 700 "${folder}/state" "${folder}/munge"

mungekey --create --keyfile="${folder}/munge/key"
munged --key-file="${folder}/munge/key" --socket="${folder}/munge.socket" --pid-file="${folder}/munged.pid" \
    --log-file="${folder}/munge/log" --seed-file="${folder}/munge/seed"
slurmctld
for n in $(seq "${nodes}"); do
    mkdir "${folder}/spool.node${n}"
    slurmd -N "node${n}"
done
for _ in $(seq 100); do
    if [ "$(sinfo --noheader --Node --states=idle | wc -l)" -eq "${nodes}" ]; then break; fi
    sleep 0.1
done
if [ "$(sinfo --noheader --Node --states=idle | wc -l)" -ne "${nodes}" ]; then
    echo "tools/slurm_local.sh: the nodes did not come up" >&2
    sinfo --long --Node >&2 || true
    tail -n 20 "${folder}"/*.log >&2
    exit 1
fi
"$@"
