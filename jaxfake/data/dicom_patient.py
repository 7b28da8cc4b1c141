"""The patient in a DICOM header, as a hash: no value leaves this module."""

import hashlib
import io
import logging
import re
from typing import BinaryIO
import warnings
import zlib

from pydicom import filereader, uid

from jaxfake.data import patients

# Both would tell of odd headers, and show what stands in them.
warnings.filterwarnings("ignore", module=r"pydicom\b")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

_STAND_IN = re.compile(
  r"[\W_0x]*|(?:anon(?:ym(?:ous|i[sz]ed))?|(?:de[- _]?)identified|deid|removed"
  r"|redacted|unknown|unk|none|null|nil|nan|n/?a|no ?(?:id|name)|not ?available"
  r"|missing|blank|empty|default|dummy|test|patient|patient ?id|id|name|hidden"
  r"|masked|private|confidential|deleted|undefined|unspecified|noname)"
  r"(?:[\W_]*(?:patient|id|subject|name))?",
  re.IGNORECASE,
)


def header(file: BinaryIO) -> patients.Header | None:
  """The patient in an open DICOM file's header, or None. Reads to group 10."""
  wanted = [0x00100020, 0x00100021]
  after = lambda tag, vr, length: tag > 0x00100021
  try:
    meta = _meta(file)
    if meta is not None and meta == uid.DeflatedExplicitVRLittleEndian:
      dataset = filereader.read_dataset(
        _inflated(file), False, True, stop_when=after, specific_tags=wanted
      )
    else:
      file.seek(0)
      dataset = filereader.read_partial(
        file, stop_when=after, force=True, specific_tags=wanted
      )
    # As stored: a value's character set is not needed, and may be wrong.
    id, issuer = (_text(dataset.get_item(tag)) for tag in wanted)
  except Exception:  # Broken headers raise nearly anything; reading says so.
    return None
  if _STAND_IN.fullmatch(id):
    return None
  bare = _hash("", id)
  return patients.Header(_hash(issuer, id) if issuer else bare, bare)


def _meta(file):
  """The transfer syntax that a file names, or None; leaves it after that."""
  if file.read(132)[128:] != b"DICM":
    return None
  return filereader.read_dataset(
    file,
    False,
    True,
    stop_when=lambda tag, vr, length: tag.group != 2,
  ).get("TransferSyntaxUID")


def _inflated(file):
  """The first MB of a deflated data set; it may be made to hold gigabytes."""
  return io.BytesIO(
    zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(1 << 20), 1 << 20)
  )


def _text(element) -> str:
  value = b"" if element is None else element.value or b""
  if not isinstance(value, bytes):
    value = str(value).encode()
  text = value.decode("latin-1").replace("\0", " ")
  return " ".join(text.split()).casefold()


def _hash(*parts: str) -> str:
  text = "\0".join(parts).encode()
  return "dicom-" + hashlib.blake2b(text, digest_size=8).hexdigest()
