#!/usr/bin/env bash
# Makes the detector that comes with the program, from nothing but radiographs:
#
#   launch/ship.sh OUT RADIOGRAPHS FOLDERS LICENCES [--config.FIELD=VALUE ...]
#
# RADIOGRAPHS is a folder of classes for our own generator to learn from, FOLDERS
# what data.dir of many sources takes, LICENCES those to learn from. The result
# is OUT/detector/shipped, to be copied to jaxfake/shipped. Takes hours on two
# cores; the same command goes on where it stopped.
set -euo pipefail
out=$1 radiographs=$2 folders=$3 licences=$4
shift 4

# Fakes of our own generator, large enough for the detector's crops.
python -m jaxfake.main --config configs/dcgan.py:quick --workdir "$out/dcgan" \
  --config.data.name=chest_xray --config.data.dir="$radiographs" \
  --config.data.split=patient --config.data.size=128 --config.model.width=16
python -m jaxfake.sample --workdir "$out/dcgan" --count 300 \
  --out "$out/dcgan_128"

python -m jaxfake.main --config configs/ship.py --workdir "$out/detector" \
  --config.data.dir="$folders" --config.fakes="dcgan_128=$out/dcgan_128" \
  --config.data.many_sources.licences="$licences,dcgan_128" "$@"
