#!/usr/bin/env bash
# From a blank machine to a report:
#
#   launch/local.sh
#   launch/local.sh --config configs/dcgan.py:quick [more flags]
#
# Makes .venv, installs into it (for a GPU where there is one), runs the study,
# or what the arguments say, and says where the report is. Needs Python 3.11 to
# 3.13 with venv and pip, and the packages of PyPI. The same command goes on
# where it was interrupted. PYTHON names another interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
if (($# == 0)); then set -- --config configs/study.py:quick; fi

for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    2>/dev/null && break
  python=
done
if [[ -z $python ]]; then
  echo "launch/local.sh: no Python of 3.11 or newer: install one, or name it" \
    "with PYTHON=/path/to/python3" >&2
  exit 2
fi

extra=
if nvidia-smi -L &>/dev/null; then extra='[cuda]'; fi
"$python" -m venv .venv
.venv/bin/pip install --quiet -e ".$extra"
.venv/bin/python -m jaxfake.main "$@"

run=$(.venv/bin/python -c '
import sys
from jaxfake import configuration
print(configuration.parse(sys.argv)[1].resolve())' "$@")
for name in report.html result.json; do
  if [[ -f $run/$name ]]; then echo "The report is $run/$name"; exit; fi
done
