#!/usr/bin/env bash
# One run in N processes on this machine:
#
#   launch/multiprocess.sh N --config configs/dcgan.py:quick [more flags]
#   launch/multiprocess.sh N sample --workdir FOLDER --count 100 --out FOLDER
#
# The exit code is the first process's that failed. Ctrl-C and SIGTERM reach all
# of them: they save and leave. Where one dies, the others end within a minute,
# and the same command, with any N, continues. On a machine with GPUs each
# process takes one. Set JAX_COORDINATOR_ADDRESS to choose the port.
set -u
n=${1:?"usage: launch/multiprocess.sh N [sample] --config FILE [more flags]"}
shift
command=main
if [[ ${1--} != -* ]]; then
  command=$1
  shift
fi
port=$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
export JAX_COORDINATOR_ADDRESS=${JAX_COORDINATOR_ADDRESS:-localhost:$port}
export JAX_NUM_PROCESSES=$n

one() { # Process $1 of the run; says how it ended, where that is not well.
  trap : TERM INT # This shell outlives a signal; python does as it likes.
  JAX_PROCESS_ID=$1 JAX_LOCAL_DEVICE_IDS=${JAX_LOCAL_DEVICE_IDS:-$1} \
    python -m "jaxfake.$command" "${@:2}"
  local code=$?
  if ((code > 128 && code != 130)); then
    echo "multiprocess.sh: process $1 of $n died of signal $((code - 128))" >&2
  fi
  exit "$code"
}

set -m # Else bash starts background jobs deaf to Ctrl-C.
pids=()
for ((i = 0; i < n; i++)); do
  one "$i" "$@" &
  pids+=($!)
done
# Each job is a process group: the shell and its python.
trap 'kill -TERM "${pids[@]/#/-}" 2>/dev/null' TERM
trap 'kill -INT "${pids[@]/#/-}" 2>/dev/null' INT

code=0
for pid in "${pids[@]}"; do
  while wait "$pid"; status=$?; kill -0 "$pid" 2>/dev/null; do :; done
  if ((status && !code)); then code=$status; fi
done
exit "$code"
