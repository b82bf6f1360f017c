#!/usr/bin/env bash
# One run on some nodes of a Slurm cluster: Ray on each of them, the driver on the first.
#   sbatch --nodes 4 --cpus-per-task 16 docker/slurm.sh CONFIG.toml /shared/runs/NAME [arguments of distsgd train]
# What must be shared by the nodes: this environment (distsgd with ray), data and run directory (or s3://...).
# Two minutes before its time is up the run is saved and the job queued again; it then continues from there.
#SBATCH --job-name=distsgd
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

(($# >= 2)) || { echo "usage: sbatch --nodes N docker/slurm.sh CONFIG.toml RUN_DIR [arguments of train]" >&2; exit 2; }
config=$1 run_dir=$2
shift 2

export RAY_AUTH_MODE=token RAY_worker_niceness=0 RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n') # srun hands it to the nodes in their environment.
export RAY_AUTH_TOKEN

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | tr ' ' '\n' | grep -v '^127\.' | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000)) # Another job's Ray may run on a node that is not exclusive.
address=$head_ip:$port

ray_on() { # node, arguments of ray start
    local node=$1
    shift
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" \
        ray start --block --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --include-dashboard=false "$@" &
    nodes_up+=($!)
}

nodes_up=()
driver=
asked=
stop() { # A signal ends `wait` before the driver has ended.
    asked=1
    [[ -z $driver ]] || kill -TERM "$driver" 2>/dev/null || true
}
trap stop TERM
trap '((${#nodes_up[@]})) && kill "${nodes_up[@]}" 2>/dev/null; wait' EXIT

ray_on "$head" --head --node-ip-address="$head_ip" --port="$port"
for _ in {1..60}; do
    ray health-check --address "$address" 2>/dev/null && break
    sleep 1
done
ray health-check --address "$address" || { echo "no head of Ray at $address within a minute" >&2; exit 4; }
for node in "${nodes[@]:1}"; do ray_on "$node" --address="$address"; done

distsgd train "$config" --run-dir "$run_dir" --resume auto --set "parallel.address=\"$address\"" "$@" &
driver=$!
while :; do
    code=0
    wait "$driver" || code=$?
    [[ -n $asked ]] || break
    asked=
done
# Interrupted (6), or the cluster failed (4): the run is saved, and continues when Slurm starts the job again.
if ((code == 6 || code == 4)) && ((${SLURM_RESTART_COUNT:-0} < 20)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
