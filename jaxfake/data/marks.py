"""Whether a file says of itself that it is synthetic."""

from jaxfake.data import image_file

# What jaxfake.sample and jaxfake.tamper write, and IPTC's codes that other
# programs write too.
_MARKS = (
  b"tEXtjaxfake\0",
  b"trainedAlgorithmicMedia",
  b"compositeWithTrainedAlgorithmicMedia",
  b"compositeSynthetic",
)


def marked(data: bytes) -> bool:
  """Of a PNG, JPEG or DICOM file's bytes. False says nothing: a mark is easily
  lost, and not every generator leaves one."""
  if image_file.looks_dicom(data):
    from jaxfake.data import dicom_file  # pydicom: half a second to import.

    return dicom_file.synthetic(data)
  return any(mark in data for mark in _MARKS)
