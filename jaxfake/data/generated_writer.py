"""Folders of synthetic images, every one marked: PNG files or shards of them,
and the manifest. data.name=generated reads them."""

import collections
import io
import itertools
import json
import pathlib
from typing import TYPE_CHECKING

from PIL import Image, PngImagePlugin

from jaxfake import __version__, errors
from jaxfake.runtime import disk

if TYPE_CHECKING:
  import numpy as np

CHUNK = 128  # PNG files between lines in the manifest.
SHARD = 8192  # Images of an ArrayRecord file.
# What image tools look for: IPTC's code for media made by a trained algorithm,
# or another of its codes.
TRAINED, COMPOSITE = "trainedAlgorithmicMedia", "compositeSynthetic"
TRANSLATED = "Synthetic image, made of another by a trained network"
_XMP = (
  '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
  ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
  ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
  ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/'
  'digitalsourcetype/%s"/></rdf:RDF></x:xmpmeta>'
)


def png(
  image: "np.ndarray",
  facts: dict,
  comment: str = "Synthetic image, not of a patient",
  source: str = TRAINED,
) -> bytes:
  """PNG bytes of uint8 (h, w, c), or uint16 (h, w, 1), marked as synthetic in
  its text chunks; `source` is IPTC's code of where it comes from."""
  info = PngImagePlugin.PngInfo()
  info.add_text("Comment", comment)
  info.add_text("Software", f"jaxfake {__version__}")
  info.add_text("jaxfake", json.dumps(facts, sort_keys=True))
  info.add_itxt("XML:com.adobe.xmp", _XMP % source)
  out = io.BytesIO()
  image = image[..., 0] if image.shape[-1] == 1 else image
  Image.fromarray(image).save(out, "PNG", pnginfo=info)
  return out.getvalue()


def begin(out: pathlib.Path, facts: dict) -> None:
  """Makes or reopens the folder. Raises ConfigError where other samples are in
  it."""
  about = out / "sampler.json"
  if about.exists():
    old = disk.read_json(about)
    decisive = [k for k in facts if k not in ("count", "guard")]
    if changed := [k for k in decisive if old.get(k) != facts[k]]:
      raise errors.ConfigError(
        f"--out {out} holds other samples: "
        + "; ".join(f"{k} {old.get(k)!r}, now {facts[k]!r}" for k in changed)
      )
    if facts["count"] < old["count"]:
      raise errors.ConfigError(
        f"--out {out} is for {old['count']} images: expected at least as many"
      )
  disk.write_json(about, facts)
  collect(out)


def collect(out: pathlib.Path) -> None:
  """Joins what each process has listed into manifest.jsonl, in order."""
  lists = sorted(out.glob("manifest*.jsonl"))
  # By index: killed in here, a process leaves lines in two of the files.
  rows = {x["index"]: x for path in lists for x in disk.read_lines(path)}
  listed = collections.Counter(
    x["file"] for x in rows.values() if "record" in x
  )
  # Killed while a shard's lines were being written: the shard is made again.
  torn = {x for x, n in listed.items() if n < count_records(out / x)}
  whole = [rows[i] for i in sorted(rows) if rows[i]["file"] not in torn]
  manifest = out / "manifest.jsonl"
  part = manifest.with_name(manifest.name + ".part")
  part.write_text("".join(json.dumps(x) + "\n" for x in whole))
  part.replace(manifest)
  for path in lists:
    if path != manifest:
      path.unlink()


def tell_originals(out: pathlib.Path) -> None:
  """Writes sources.csv: which picture each was made of. The patient is left to
  data.name=many_sources, which knows the original's."""
  rows = disk.read_lines(out / "manifest.jsonl")
  disk.write_csv(
    out / "sources.csv",
    [
      {"file": x["file"], "patient": "", "original": x["original"]}
      for x in rows
    ],
  )


def missing(out: pathlib.Path, count: int, unit: int) -> list[list[int]]:
  """The indices still to be made, in runs; none crosses a multiple of unit."""
  done = {x["index"] for x in disk.read_lines(out / "manifest.jsonl")}
  left = (i for i in range(count) if i not in done)
  # Along a run, an index and its place in the list differ by the same.
  runs = itertools.groupby(
    enumerate(left), lambda at: (at[1] - at[0], at[1] // unit)
  )
  return [[i for _, i in run] for _, run in runs]


def finished(out: pathlib.Path, count: int) -> bool:
  """Whether a folder holds so many samples already."""
  return len(disk.read_lines(out / "manifest.jsonl")) >= count


def count_records(shard: pathlib.Path) -> int:
  from array_record.python import array_record_data_source

  with array_record_data_source.ArrayRecordDataSource(str(shard)) as source:
    return len(source)


def write_pngs(
  out: pathlib.Path, first: int, encoded: list[bytes]
) -> list[dict]:
  """One file an image, 10,000 a folder; returns their places."""
  places = []
  for i, data in enumerate(encoded, first):
    file = pathlib.Path("images", f"{i // 10000:04}", f"{i:08}.png")
    if not places or i % 10000 == 0:
      (out / file).parent.mkdir(parents=True, exist_ok=True)
    (out / file).write_bytes(data)
    places.append({"file": str(file)})
  return places


def write_shard(
  out: pathlib.Path, first: int, encoded: list[bytes]
) -> list[dict]:
  """One ArrayRecord file of PNG bytes; returns their places."""
  from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

  file = f"synthetic-{first:08}.array_record"
  part = out / (file + ".part")
  writer = array_record_module.ArrayRecordWriter(str(part), "group_size:1")
  for data in encoded:
    writer.write(data)
  writer.close()
  part.replace(out / file)
  return [{"file": file, "record": i} for i in range(len(encoded))]
