#!/usr/bin/env bash
# One run in N processes on this machine:
#
#   launch/multiprocess.sh N --config configs/dcgan.py:quick [more flags]
#
# The exit code is the first process's that failed. Ctrl-C reaches all of them:
# they save and leave. Set JAX_COORDINATOR_ADDRESS to choose the port.
set -u
n=${1:?"usage: launch/multiprocess.sh N --config FILE [more flags]"}
shift
port=$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
export JAX_COORDINATOR_ADDRESS=${JAX_COORDINATOR_ADDRESS:-localhost:$port}
export JAX_NUM_PROCESSES=$n

set -m # Else bash starts background jobs deaf to Ctrl-C.
pids=()
for ((i = 0; i < n; i++)); do
  JAX_PROCESS_ID=$i python -m jaxfake.main "$@" &
  pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM
trap 'kill -INT "${pids[@]}" 2>/dev/null' INT

code=0
for pid in "${pids[@]}"; do
  while wait "$pid"; status=$?; kill -0 "$pid" 2>/dev/null; do :; done
  if ((status && !code)); then code=$status; fi
done
exit "$code"
