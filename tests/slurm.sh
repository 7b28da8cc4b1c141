#!/usr/bin/env bash
# A Slurm cluster of one node, this machine, for tests: tests/slurm.sh up|down.
#
# Debian's slurm-wlm and munge, installed where they are missing. Only loopback
# is listened on; no systemd, no cgroups, no accounting. Either may be said
# twice. Needs root. A machine that belongs to a real cluster is left alone.
set -euo pipefail
conf=/etc/slurm/slurm.conf
state=/var/lib/slurm-of-tests
mark="# Written by tests/slurm.sh"

settings() {
  cat <<END
$mark
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
# A job that was requeued waits until its credential is out of date: 120 s.
AuthInfo=cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0
KillWait=20
MpiDefault=none
ReturnToService=2
# More tasks than cores: they are small. The name resolves on any machine.
SlurmdParameters=config_overrides
NodeName=localhost NodeHostname=$(hostname) NodeAddr=127.0.0.1 CPUs=16 State=UNKNOWN
PartitionName=tests Nodes=ALL Default=YES MaxTime=60
END
}

running() { # PID file: whether its process lives.
  [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null
}

start() { # PID file, command: starts a daemon unless it runs.
  local pid=$1
  shift
  running "$pid" || "$@"
}

stop() { # PID file: ends a daemon and waits until it is gone.
  running "$1" || return 0
  local pid
  pid=$(cat "$1")
  kill "$pid"
  for _ in {1..100}; do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -9 "$pid"
}

own() { # Whether the machine's Slurm is ours, or nobody's.
  [ ! -e "$conf" ] || head -1 "$conf" | grep -qx "$mark"
}

up() {
  if ! command -v slurmctld slurmd munged >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # Stops the packages' own services from being started.
    apt-get install -qqy --no-install-recommends slurm-wlm munge >/dev/null
  fi
  mkdir -p "$state"/{ctld,d} /run/munge /etc/slurm
  chown munge: /run/munge
  chmod 755 /run/munge
  start /run/munge/munged.pid setpriv --reuid=munge --regid=munge \
    --clear-groups munged
  settings >"$conf"
  start "$state/slurmctld.pid" slurmctld
  start "$state/slurmd.pid" slurmd -N localhost
  for _ in {1..60}; do
    case $(timeout 5 sinfo -h -o %T 2>/dev/null) in
      idle | mixed | allocated) return ;;
    esac
    sleep 0.5
  done
  echo "tests/slurm.sh: no node after 30 s; see $state/*.log" >&2
  sinfo >&2
  exit 1
}

down() {
  timeout 5 scancel --signal=KILL --full --user=root 2>/dev/null || true
  stop "$state/slurmd.pid"
  stop "$state/slurmctld.pid"
  stop /run/munge/munged.pid
  rm -rf "$state" "$conf"
}

if ! own; then
  echo "tests/slurm.sh: $conf is not of this script: left alone" >&2
  exit 1
fi
case ${1-} in
  up) up ;;
  down) down ;;
  *)
    echo "usage: tests/slurm.sh up|down" >&2
    exit 2
    ;;
esac
