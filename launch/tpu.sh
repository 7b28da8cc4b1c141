#!/usr/bin/env bash
# One run on a Cloud TPU, from its creation to its deletion:
#
#   launch/tpu.sh ZONE BUCKET --config configs/dcgan.py [more flags]
#   TPU_TYPE=v5litepod-32 SPOT=1 launch/tpu.sh us-west4-a my-runs --config ...
#
# Needs gcloud, logged in to a project with TPU quota, and for several hosts
# `ssh-add ~/.ssh/google_compute_engine`. HEAD of this checkout goes to every
# host; each mounts gs://BUCKET, made where there is none (one of your own needs
# a hierarchical namespace), as runs/, where the results stay. Images of your
# own: copy them there, and --config.data.dir=runs/FOLDER. A TPU that is taken
# away is made again, up to four times, and the run goes on. At the end the TPU
# is deleted, after Ctrl-C too. TPU_VERSION is its software, TPU_NAME its name.
# Exits as the run did.
set -euo pipefail
zone=${1:?"usage: launch/tpu.sh ZONE BUCKET --config FILE [more flags]"}
bucket=${2:?"usage: launch/tpu.sh ZONE BUCKET --config FILE [more flags]"}
shift 2
cd "$(dirname "$0")/.."
name=${TPU_NAME:-jaxfake-${USER:-run}}
on=("$name" --zone="$zone")
tpu() { gcloud compute tpus tpu-vm "$@"; }

if tpu describe "${on[@]}" &>/dev/null; then
  echo "launch/tpu.sh: $name is there already, perhaps in use: delete it, or" \
    "choose another TPU_NAME" >&2
  exit 2
fi
if ! gcloud storage buckets describe "gs://$bucket" &>/dev/null; then
  # With folders that can be renamed at once, as saving a checkpoint does.
  gcloud storage buckets create "gs://$bucket" --location="${zone%-*}" \
    --uniform-bucket-level-access --enable-hierarchical-namespace
fi

code=0 made='' folder=$(mktemp -d)
clean() {
  if [[ $made ]]; then tpu delete "${on[@]}" --quiet || true; fi
  made=''
}
trap 'clean; rm -r "$folder"' EXIT
git bundle create --quiet "$folder/jaxfake.bundle" HEAD
install=$(
  cat <<'END'
set -euo pipefail
if ! command -v gcsfuse >/dev/null; then
  key=/usr/share/keyrings/cloud.google.asc
  apt=https://packages.cloud.google.com/apt
  curl -fsS $apt/doc/apt-key.gpg | sudo tee $key >/dev/null
  echo "deb [signed-by=$key] $apt gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get -q update && sudo apt-get -qy install gcsfuse
fi
git init -q jaxfake && cd jaxfake && git pull -q ~/jaxfake.bundle HEAD
mkdir -p runs
# Hosts must see at once what others have written.
gcsfuse --metadata-cache-ttl-secs=0 BUCKET runs
python3 -m pip install -q --user uv # For a newer Python than the machine's.
~/.local/bin/uv venv -q --python 3.13
~/.local/bin/uv pip install -q -e '.[tpu]'
END
)
printf -v run ' %q' "$@"
run="cd jaxfake && exec .venv/bin/python -m jaxfake.main$run"

for _ in {1..5}; do
  made=1
  tpu create "${on[@]}" --accelerator-type="${TPU_TYPE:-v5litepod-8}" \
    --version="${TPU_VERSION:-v2-alpha-tpuv5-lite}" ${SPOT:+--spot}
  tpu scp "$folder/jaxfake.bundle" "$name:" --zone="$zone" --worker=all
  tpu ssh "${on[@]}" --worker=all --command="${install/BUCKET/$bucket}"
  code=0
  tpu ssh "${on[@]}" --worker=all --command="$run" || code=$?
  clean
  # 75: saved when told to stop. 255: no connection, so no machine.
  if ((code != 75 && code != 255)); then break; fi
done
exit "$code"
