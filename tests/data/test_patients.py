"""Whose an image is: from DICOM, names, folders or a CSV file; or not known."""

import io
import json
import pathlib

import hypothesis
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pydicom
import pytest
from test_datasets import config, kaggle, prepared

from jaxfake import data, errors
from jaxfake.data import __main__ as command
from jaxfake.data import (
  describe,
  dicom_patient,
  duplicates,
  folders,
  grouping,
  image_error,
  patients,
  reading,
)

__all__ = ["prepared"]  # The fixture that keeps prepared data out of home.

DESCRIBE = ["describe", "chest_xray", "--split", "patient"]
STAND_INS = """
;  ;ANONYMOUS;anonymized;Anonymous^Patient;UNKNOWN;N/A;0;000000;xxxx;-;NONE;
De-identified;REMOVED;No ID
"""
UUID = "0004cfab-14fd-4e49-80ba-63a80b6bddd6"
NAMED = {
  "person12_virus_3.jpeg": "person12",
  "PERSON12_BACTERIA_3.JPEG": "person12",
  " person12_virus_4 (1).png": "person12",
  "im-0115-0001.jpeg": "IM-0115",
  "normal2-im-0115-0001.JPG": "IM-0115",
  "virus-1003233-0001.jpeg": "1003233",
  "00000013_005.png": "00000013",
  "00000013_005.PNG": "00000013",
  "images_001/images/00030805_000.png": "00030805",
  "00000013_005 copy.jpg": "00000013",
  "10203040_001.dcm": "10203040",
  "patient00001/study1/view1_frontal.jpg": "patient00001",
  "Patient00001/Study2/View2_Lateral.JPG": "patient00001",
  "patient00001_study1_view1_frontal.png": "patient00001",
  "CheXpert-v1.0-small/train/patient64541/study1/view1.jpg": "patient64541",
  "p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34.jpg": "p10000032",
  "P10/P10000032/S50414267/a.dcm": "p10000032",
  "p10000032/s50414267/a.png": "p10000032",
  "p10000032_s50414267_a.png": "p10000032",
  f"{UUID}.dcm": UUID,
  f"{UUID.upper()}.PNG": UUID,
}
NOT_NAMED = [
  "a_001.png",
  "000434271f63a053c4128a0ba6352c7f.dicom",  # VinDr's: of the image.
  "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.jpg",  # MIMIC's, alone.
  "20200131_001.png",  # A date.
  "1.2.840.113619.2.5.1762583153.215519.978957063.78",
  "personal.png",
  "IM0001.dcm",
  "outpatient 12.png",
  "patients.png",
  "0001.png",
  "scan 1 of 2.png",
]


@pytest.mark.parametrize("path, patient", NAMED.items())
def test_public_sets_name_the_patient(path, patient):
  assert patients.named(path) == (patient, patients.NAME)


@pytest.mark.parametrize("name", NOT_NAMED)
def test_other_names_tell_nothing(name):
  assert patients.named(name) == ("", "")
  assert patients.named(f"images/{name}") == ("", "")


@pytest.mark.parametrize(
  "path, patient",
  [
    ("0012/a.png", "0012"),
    ("Smith_John/a.png", "smith_john"),
    ("case-7/frontal/a.png", "case-7"),
    ("images/P003/a.png", "p003"),
    ("batch 3/P003/a.png", "p003"),
    ("hannover/patient 7/a.png", "patient7"),
    ("P003/2020-01-31/a.png", "p003"),
    ("P003/1.2.840.113619.2.5.1/a.dcm", "p003"),
    ("PA01/a.png", "pa01"),
    ("P003/IM-0001-0002.jpg", "p003"),  # As viewers name exports.
    (f"P003/{UUID}.png", "p003"),
    ("images/IM-0115-0002.jpg", "IM-0115"),
    ("mine/00000013_005.png", "00000013"),
    ("mine/person1_virus_1.png", "person1"),
    ("X rays 2/a.png", ""),
    ("images/a.png", ""),
    ("Batch_03/a.png", ""),
    ("site_B/AP/a.png", ""),
    ("PA/a.png", ""),
    ("20200131/a.png", ""),
    ("2020-01/a.png", ""),
    ("s50414267/a.png", ""),
    ("1.2.840.113619.2.5.1/a.dcm", ""),
  ],
)
def test_a_folder_is_a_patient_or_merely_holds_some(path, patient):
  assert patients.named(path)[0] == patient


def test_large_folders_and_years_are_no_patients():
  many = [f"hannover/{i}.png" for i in range(patients.MOST + 1)]
  assert patients.groups(many) == {"hannover"}
  assert patients.groups(["x/2019/a.png", "x/2020/b.png"]) == {
    "x/2019",
    "x/2020",
  }
  assert patients.groups(["0417/a.png", "2020/b.png"]) == set()


def test_images_of_a_study_stay_together_though_their_patient_is_not_known():
  uid = "1.2.840.113619.2.5.1"
  assert patients.without(f"{uid}/1.dcm") == patients.without(f"{uid}/2.dcm")
  assert patients.without("1.2.3.1000") != patients.without("1.2.3.1001")


def dicom(path, image, syntax=pydicom.uid.ExplicitVRLittleEndian, **elements):
  """Writes a radiograph with the given elements in its header."""
  ds = pydicom.Dataset()
  ds.file_meta = pydicom.dataset.FileMetaDataset()
  ds.file_meta.TransferSyntaxUID = syntax
  ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
  ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
  ds.Modality, ds.PhotometricInterpretation = "DX", "MONOCHROME2"
  ds.Rows, ds.Columns = image.shape
  ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
  ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
  ds.PixelData = image.tobytes()
  for name, value in elements.items():
    setattr(ds, name, value)
  ds.save_as(path, enforce_file_format=True)


def noise(seed, side=32):
  """A picture that is like no other."""
  rng = np.random.default_rng(seed)
  coarse = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8))
  return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))


def header(tmp_path, **elements):
  dicom(tmp_path / "x.dcm", noise(0), **elements)
  with open(tmp_path / "x.dcm", "rb") as file:
    return dicom_patient.header(file)


@pytest.mark.parametrize(
  "syntax",
  [
    pydicom.uid.ImplicitVRLittleEndian,
    pydicom.uid.ExplicitVRLittleEndian,
    pydicom.uid.DeflatedExplicitVRLittleEndian,
    pydicom.uid.ExplicitVRBigEndian,
  ],
)
def test_a_header_tells_the_patient(tmp_path, syntax):
  same = header(tmp_path, PatientID="MRN 4711").patient
  told = header(tmp_path, PatientID=" mrn 4711 ", syntax=syntax)
  assert told.patient == told.bare == same
  a, b = (
    header(tmp_path, PatientID="MRN 4711", IssuerOfPatientID=x, syntax=syntax)
    for x in ("A", "B")
  )
  assert len({a.patient, b.patient, same}) == 3 and a.bare == b.bare == same
  assert "4711" not in same


def test_a_header_without_preamble_or_with_a_damaged_rest(tmp_path):
  dicom(tmp_path / "x.dcm", noise(0), PatientID="7")
  whole = (tmp_path / "x.dcm").read_bytes()
  told = dicom_patient.header(io.BytesIO(whole))
  at = whole.index(b"\x08\0\x16\0")  # The first element after the file meta.
  assert dicom_patient.header(io.BytesIO(whole[at:])) == told
  assert dicom_patient.header(io.BytesIO(whole[:-900])) == told
  assert dicom_patient.header(io.BytesIO(whole[:200])) is None


def test_a_deflated_header_is_not_inflated_whole(tmp_path):
  import zlib

  dicom(tmp_path / "x.dcm", noise(0), PatientID="7")
  whole = (tmp_path / "x.dcm").read_bytes()
  at = whole.index(b"\x08\0\x16\0")
  syntax = pydicom.uid.DeflatedExplicitVRLittleEndian
  dicom(tmp_path / "d.dcm", noise(0), syntax, PatientID="7")
  start = (tmp_path / "d.dcm").read_bytes()
  start = start[: start.index(syntax.encode()) + len(syntax)]
  packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
  bomb = start + packer.compress(whole[at:] + bytes(1 << 28)) + packer.flush()
  import tracemalloc

  tracemalloc.start()
  assert dicom_patient.header(io.BytesIO(bomb)) is not None
  assert tracemalloc.get_traced_memory()[1] < 1 << 24
  tracemalloc.stop()


@pytest.mark.parametrize("id", STAND_INS.split(";"))
def test_a_stand_in_for_an_id_tells_nothing(tmp_path, id):
  assert header(tmp_path, PatientID=id, IssuerOfPatientID="A") is None
  assert header(tmp_path) is None


def folder(root, files):
  """Writes {path: image or (image, DICOM elements)}."""
  for name, image in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, tuple):
      dicom(path, image[0], **image[1])
    else:
      Image.fromarray(image).save(path, "PNG")
  return root


def records(set_):
  """{id: (split, patient)} of everything."""
  found = {}
  for split in set_.facts["counts"]:
    source = set_.source(split)
    columns = (source.column(name) for name in ("id", "patient"))
    for id, patient in zip(*columns, strict=True):
      found[id] = split, patient
  return found


def test_dicom_patients_stay_in_one_split_and_are_nowhere_in_clear(
  tmp_path, prepared
):
  ids = {
    f"{c}/{i}{k}.dcm": f"SECRET{i}"
    for i in range(20)
    for k, c in enumerate("AB")
  }
  files = {
    name: (noise(i), {"PatientID": id})
    for i, (name, id) in enumerate(ids.items())
  }
  set_ = data.prepare(
    config(dir=folder(tmp_path / "x", files), split="patient")
  )
  whose = {}
  for name, told in records(set_).items():
    assert whose.setdefault(ids[name], told) == told
  assert len(set(whose.values())) == 20
  assert set_.facts["patients_by"][patients.DICOM] == 40
  assert not any(set_.facts["patients_unknown"].values())
  assert "not known" not in set_.summary()
  assert "SECRET" not in json.dumps(set_.facts) + set_.summary()
  for path in prepared.rglob("*"):
    assert not path.is_file() or b"SECRET" not in path.read_bytes()


def test_what_was_read_is_not_read_again(tmp_path, monkeypatch):
  files = {f"A/{i}.dcm": (noise(i), {"PatientID": str(i)}) for i in range(9)}
  c = config(dir=folder(tmp_path / "x", files), split="patient")
  first = data.prepare(c)
  for name in "header", "picture":
    monkeypatch.setattr(grouping, name, None)
  assert data.prepare(c).facts == first.facts


def test_an_official_split_knows_dicom_patients_too(tmp_path):
  root = kaggle(tmp_path / "x")
  files = {
    f"{split}/NORMAL/a.dcm": (noise(i), {"PatientID": "P"})
    for i, split in enumerate(folders.SPLITS)
  }
  facts = data.prepare(config(dir=folder(root, files))).facts
  assert facts["patient_overlap"]["train-test"] == 1
  assert facts["patients_by"][patients.DICOM] == 3


def test_one_id_on_most_images_is_no_patient(tmp_path):
  files = {
    f"{c}/{i}.dcm": (noise(i), {"PatientID": "SITE-7"})
    for i in range(20)
    for c in "AB"
  }
  files["A/x.dcm"] = noise(99), {"PatientID": "P1"}
  set_ = data.prepare(
    config(dir=folder(tmp_path / "x", files), split="patient")
  )
  assert "patients not known for 40 of 41 images" in set_.summary()
  assert len(set_.facts["counts"]) > 1


def test_issuers_tell_patients_apart_but_not_where_one_names_none(tmp_path):
  same = [(noise(i), {"PatientID": "7"}) for i in range(60)]
  for i, (_, elements) in enumerate(same):
    elements["IssuerOfPatientID"] = f"H{i // 2}"
  files = {f"A/{i}.dcm": x for i, x in enumerate(same)}
  root = folder(tmp_path / "x", files)
  set_ = data.prepare(config(dir=root, split="patient"))
  assert sum(set_.facts["patients"].values()) == 30
  assert len(set_.facts["counts"]) > 1
  del same[0][1]["IssuerOfPatientID"]
  folder(root, {"A/0.dcm": same[0]})
  # It may be any of these patients: all stay with it.
  set_ = data.prepare(config(dir=root, split="patient"))
  assert len(set_.facts["counts"]) == 1


def table(tmp_path, *lines, encoding="utf-8"):
  path = tmp_path / "who.csv"
  path.write_text("\n".join(lines) + "\n", encoding)
  return str(path)


def mixed(tmp_path):
  return folder(
    tmp_path / "x",
    {
      "A/person1_virus_1.png": noise(0),
      "A/sub/scan.png": noise(1),
      "B/b.dcm": (noise(2), {"PatientID": "P"}),
      "B/scan.png": noise(3),
    },
  )


def test_a_csv_file_goes_before_dicom_and_names(tmp_path):
  root = mixed(tmp_path)
  lines = (
    "Patient ;age;FILE",
    "w;1;A\\person1_virus_1.png",
    "x;2; ./A/sub/scan.png ",
    "",
    "y;3;b.dcm",
    "w;4;B/scan.png",
  )
  for encoding in "utf-8", "utf-8-sig":
    path = table(tmp_path, *lines, encoding=encoding)
    set_ = data.prepare(config(dir=root, split="patient", patients=path))
    told = {name: patient for name, (_, patient) in records(set_).items()}
    assert told == {
      "A/person1_virus_1.png": "w",
      "A/sub/scan.png": "x",
      "B/b.dcm": "y",
      "B/scan.png": "w",
    }
    assert set_.facts["patients_by"][patients.CSV] == 4
  changed = table(tmp_path, *[line.replace("y;", "z;") for line in lines])
  set_ = data.prepare(config(dir=root, split="patient", patients=changed))
  assert records(set_)["B/b.dcm"][1] == "z"
  code = command.main([*DESCRIBE, "--dir", str(root), "--patients", path])
  assert code == 0


@pytest.mark.parametrize(
  "lines, match",
  [
    (["image,patient"], r"who.csv:1: 0 columns 'file'"),
    (["file,patient,patient"], r"who.csv:1: 2 columns 'patient'"),
    ([], r"who.csv:1: 0 columns"),
    (["file,patient", "b.dcm"], r"who.csv:2: 1 columns: expected 2"),
    (["file,patient", "b.dcm,"], r"who.csv:2: no patient of b.dcm"),
    (["file,patient", ",p"], r"who.csv:2: no file"),
    (["file,patient", "", "no.png,p"], r"who.csv:3: no.png is no image of"),
    (["file,patient", "scan.png,p"], r"who.csv:2: scan.png is the name of 2"),
    (
      ["file,patient", "b.dcm,p", "B/b.dcm,p"],
      r"who.csv:3: B/b.dcm is in line 2 too",
    ),
    (["file,patient", "b.dcm,p"], r"who.csv: no row for 3 of 4 images, such"),
    (["file,patient", '"b.dcm,p'], r"who.csv:\d: unexpected end"),
  ],
)
def test_a_csv_file_that_is_not_right(tmp_path, lines, match):
  path = table(tmp_path, *lines)
  with pytest.raises(errors.DataError, match=match):
    data.entries(config(dir=mixed(tmp_path), split="patient", patients=path))


def test_a_csv_file_where_none_is_read(tmp_path):
  c = config(dir=mixed(tmp_path), split="patient", patients="/none/who.csv")
  with pytest.raises(errors.DataError, match=r"who\.csv: No such file"):
    data.entries(c)
  (tmp_path / "who.csv").write_bytes(b"file,patient\n\xff")
  c.patients = str(tmp_path / "who.csv")
  with pytest.raises(errors.DataError, match="not text in UTF-8"):
    data.entries(c)
  with pytest.raises(errors.ConfigError, match="only chest_xray reads it"):
    data.prepare(config("phantom", patients="who.csv"))


def test_unknown_patients_are_said_everywhere(tmp_path, capsys):
  files = {f"A/scan {i}.png": noise(i) for i in range(20)}
  files |= {f"A/person{i}_virus_1.png": noise(100 + i) for i in range(20)}
  root = folder(tmp_path / "x", files)
  set_ = data.prepare(config(dir=root, split="patient"))
  said = "patients not known for 20 of 40 images: each counts as one"
  assert f"{said}; give data.patients=FILE" in set_.summary()
  assert sum(set_.facts["patients_unknown"].values()) == 20
  for args in [], ["--json"]:
    command.main([*DESCRIBE, "--dir", str(root), *args])
    out = capsys.readouterr().out
    assert "none" not in out
    assert said in out or json.loads(out)["patients_unknown"]
  assert said in patients.overlap(set_.facts)
  known = {**set_.facts, "patients_unknown": {"train": 0}}
  assert patients.overlap(known) == "0 patients in two splits"
  shared = {**set_.facts, "patient_overlap": {"train-test": 3}}
  assert patients.overlap(shared).startswith("3 known patients in two splits, ")
  old = {k: v for k, v in set_.facts.items() if k != "patients_unknown"}
  assert "is not recorded" in patients.overlap(old)


def told(facts):
  """What every report says of a data set with these facts."""
  from jaxfake.classifiers import classifier
  from jaxfake.experiments import comparison
  from jaxfake.experiments.study import report
  from jaxfake.experiments.sweep import report as sweep_report

  start = dict(cpu="x", cpu_count=2, devices=["cpu"], commit="", date="2026")
  result = {
    "dataset": {
      "name": "chest_xray",
      "split": "patient",
      "counts": {"train": {"A": 10}, "test": {"A": 4}},
      "patients": {"train": 10, "test": 4},
      "patient_overlap": {"train-test": 0},
      **facts,
    },
    "config": {"data": {"size": 64}, "model": {"name": "cnn"}},
    "counts": {"test": {"images": 4, "patients": 4}},
    "environments": [start],
    "figures": {},
    "cost": {"gflop_per_image": 1, "parameters": 1, "ms_per_image": 1},
    "train_seconds": 1,
  }
  yield " ".join(report.about(result))
  yield " ".join(comparison.about_lines([result], 1))
  yield " ".join(sweep_report.about_lines([result], 1))
  yield classifier.summary(pathlib.Path("x"), result)


def test_reports_say_how_many_patients_are_not_known():
  for page in told({"patients_unknown": {"train": 2, "test": 1}}):
    assert "patients not known for 3 of 14 images: each counts as one" in page
    assert "0 patients in two splits" not in page
    assert "saw train patients" not in page
  for page in told({}):  # Made before they were counted.
    assert "0 patients in two splits" not in page and "not recorded" in page
  for page in told({"patients_unknown": {"train": 0, "test": 0}}):
    assert "not known" not in page and "not recorded" not in page


def test_real_or_fake_says_whose_reals_are_not_known(tmp_path):
  from test_datasets import generated
  from test_real_or_fake import config as composed

  files = {f"{c}/s{i}.png": noise(i) for i in range(40) for c in ["NORMAL"]}
  files |= {
    f"PNEUMONIA/person{i}_virus_1.png": noise(50 + i) for i in range(40)
  }
  root = folder(tmp_path / "x", files)
  fakes = generated(tmp_path / "fakes", n=200)
  set_ = data.prepare(
    composed(
      name="real_or_fake",
      dir=root,
      real_or_fake__real="chest_xray",
      real_or_fake__fakes=fakes,
    )
  )
  reals = sum(n["real"] for n in set_.facts["counts"].values())
  unknown = sum(set_.facts["patients_unknown"].values())
  assert 0 < unknown < reals
  assert f"not known for {unknown} of {2 * reals} images" in set_.summary()


def test_a_folder_a_patient_is_read_and_said(tmp_path):
  files = {
    f"{c}/P{i:03}/{k}.png": noise(10 * i + k)
    for i in range(20)
    for k, c in enumerate("AB")
  }
  set_ = data.prepare(
    config(dir=folder(tmp_path / "x", files), split="patient")
  )
  assert sum(set_.facts["patients"].values()) == 20
  assert "40 images: each folder beneath a class is a patient" in set_.summary()
  split_of = {}
  for id, (split, _) in records(set_).items():
    assert split_of.setdefault(id.split("/")[1], split) == split


def test_patients_where_classes_belong_are_refused(tmp_path):
  for name in "patient00001", "p10000032":
    root = folder(tmp_path / name, {f"train/{name}/study1/view1.png": noise(0)})
    with pytest.raises(errors.DataError, match="is named as a patient"):
      folders.kaggle(str(root), "patient")


def test_a_link_to_a_folder_above_ends(tmp_path):
  root = folder(tmp_path / "x", {"A/P1/a.png": noise(0)})
  (root / "A/P1/again").symlink_to(root / "A")
  assert len(folders.kaggle(str(root), "patient")[0]) == 1


def copy(image):
  """The same picture, larger and as a JPEG."""
  large = Image.fromarray(image).resize((120, 120), Image.Resampling.BICUBIC)
  large.save(out := io.BytesIO(), "JPEG", quality=80)
  with Image.open(out) as again:
    return np.asarray(again)


def test_near_duplicates_stay_in_one_split(tmp_path):
  pictures = {f"A/person{i}_virus_1.png": noise(i, 96) for i in range(40)}
  root = folder(tmp_path / "x", pictures)
  before = records(data.prepare(config(dir=root, split="patient")))
  for id, (split, patient) in before.items():
    assert split == folders.split_of(patient), id  # As it always was.
  copies = {f"B/scan {i}.png": copy(noise(i, 96)) for i in range(6)}
  set_ = data.prepare(config(dir=folder(root, copies), split="patient"))
  after = records(set_)
  for i in range(6):
    assert after[f"B/scan {i}.png"][0] == after[f"A/person{i}_virus_1.png"][0]
  for i in range(6, 40):
    id = f"A/person{i}_virus_1.png"
    assert after[id] == before[id]
  assert set_.facts["kept_together"] == 12
  said = "12 near-duplicates of several patients kept in one split"
  assert said in set_.summary()
  facts = describe.description(set_)
  assert said in describe.text(facts)
  assert facts["near_duplicates"]["pairs"] == 6
  assert facts["near_duplicates"]["pairs_across_splits"] == 0


def test_a_patient_stays_when_copies_of_one_image_join(tmp_path):
  files = {f"A/person1_virus_{i}.png": noise(i, 96) for i in range(3)}
  keep = {f"A/person{i}_virus_1.png": noise(100 + i, 96) for i in range(2, 20)}
  names = [n for n in map(str, range(50)) if folders.split_of(n) != "test"]
  assert folders.split_of("person1") == "test"
  files |= {f"A/{names[0]}.png": copy(noise(0, 96))}
  root = folder(tmp_path / "x", files | keep)
  set_ = data.prepare(config(dir=root, split="patient"))
  assert records(set_)[f"A/{names[0]}.png"][0] == "test"


def test_blank_images_are_no_duplicates_and_one_scheme_does_not_swallow_a_set():
  blank = np.zeros((30, 256), bool)
  assert duplicates.clusters(blank) == ([], 0)
  assert duplicates.clusters(~blank) == ([], 0)
  rng = np.random.default_rng(0)
  bits = rng.random((60, 256)) < 0.5
  bits[:40] = bits[0]  # Drawn after one pattern.
  bits[50] = bits[51]
  assert duplicates.clusters(bits) == ([[50, 51]], 40)
  bits[1:40, :10] ^= rng.random((39, 10)) < 0.5
  bits[1:40, 10:18] = rng.random((39, 8)) < 0.5
  found, apart = duplicates.clusters(bits)
  assert max(map(len, found)) <= 15 and apart < 40
  assert duplicates.clusters(np.zeros((0, 256), bool)) == ([], 0)


ENTRIES = st.lists(
  st.tuples(
    st.integers(0, 6),  # Patient; 0: not known.
    st.integers(0, 12),  # Picture: alike where equal.
    st.sampled_from(["", "H1", "H2"]),
  ),
  min_size=1,
  max_size=40,
)


def grouped(cases, order):
  rng = np.random.default_rng(0)
  bits = rng.random((13, 256)) < 0.5
  entries, seen = [], []
  for i in order:
    who, picture, issuer = cases[i]
    told = patients.Header(f"d{who}{issuer}", f"d{who}") if who else None
    name = f"A/{i}.png"
    entries.append(
      folders.Entry("train", 0, patients.UNKNOWN + name, name, name, key=name)
    )
    seen.append(grouping.Seen(told, bits[picture]))
  items, _ = grouping.settle("patient", entries, seen)
  return {e.id: e for those in items.values() for e in those}


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(ENTRIES, st.randoms(use_true_random=False))
def test_neither_patients_nor_copies_are_in_two_splits(cases, random):
  order = list(range(len(cases)))
  found = grouped(cases, order)
  random.shuffle(order)
  again = grouped(cases, order)
  assert found == again  # Whatever the order that a folder is listed in.
  whose = {}
  for i in range(len(cases)):
    e = found[f"A/{i}.png"]
    assert whose.setdefault(e.patient, e.split) == e.split
  _, near = np.unique([c[1] for c in cases], return_counts=True)
  if max(near) <= min(8, len(cases) // 2):
    shown = {}
    for i, (_, picture, _) in enumerate(cases):
      split = found[f"A/{i}.png"].split
      assert shown.setdefault(picture, split) == split


def test_class_names_that_differ_in_case_are_one_class(tmp_path):
  files = {
    f"{split}/{name}/{split}{i}.png": noise(i)
    for split, name in (("Train", "NORMAL"), ("val", "normal"))
    for i in range(3)
  }
  files |= {"test/Normal /a.png": noise(7), "test/NORMAL/b.png": noise(8)}
  for split, name in zip(
    ("Train", "val", "test"), ("Étude", "E\u0301tude", "étude"), strict=True
  ):
    files[f"{split}/{name}/c.png"] = noise(9)
  root = folder(tmp_path / "x", files)
  for policy in data.POLICIES:
    set_ = data.prepare(config(dir=root, split=policy))
    assert set_.classes == ("NORMAL", "Étude")
    counts = [n["NORMAL"] for n in set_.facts["counts"].values()]
    assert sum(counts) == 8
  assert folders.kaggle(str(root), "official")[1] == ("NORMAL", "Étude")


@pytest.mark.parametrize("name", ["nih", "dicom"])
def test_cases_from_the_field(real_data, name):
  root = real_data / "field" / "patients" / name
  if not root.is_dir():
    pytest.skip(f"no {root}")
  set_ = data.prepare(config(dir=root, split="patient"))
  of = {}
  for path in root.rglob("*.*"):
    id = path.relative_to(root).as_posix()
    true = path.name[:8]
    if name == "dicom":
      true = pydicom.dcmread(path, stop_before_pixels=True).PatientID
    of.setdefault(true, set()).add(records_cached(set_)[id][0])
  assert len(of) == 24 and all(len(splits) == 1 for splits in of.values())
  assert not any(set_.facts["patients_unknown"].values())


def records_cached(set_, kept={}):  # noqa: B006 (kept for one set at a time)
  if set_.read.directory not in kept:
    kept.clear()
    kept[set_.read.directory] = records(set_)
  return kept[set_.read.directory]


def test_unreadable_files_are_known_before_anything_is_written(
  tmp_path, monkeypatch
):
  root = folder(tmp_path / "x", {f"A/{i}.png": noise(i) for i in range(20)})
  pathlib.Path(root / "A/bad.png").write_bytes(b"")
  c = config(dir=root, split="patient")
  with monkeypatch.context() as patch:
    patch.setattr(reading, "png", None)
    with pytest.raises(errors.DataError, match="1 of 21 images cannot be read"):
      data.prepare(c)
  c.unreadable = "skip"
  set_ = data.prepare(c)
  assert set_.facts["skipped"] == 1 and len(records(set_)) == 20
  for path in (root / "A").iterdir():
    path.write_bytes(b"")
  with pytest.raises(errors.DataError, match="21 of 21 images cannot be read"):
    data.prepare(c)
  assert isinstance(
    grouping.picture(folders.kaggle(str(root), "patient")[0][0]),
    image_error.ImageError,
  )
