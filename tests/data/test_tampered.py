"""Sets of altered radiographs."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from places import CONFIGS
import pytest

from jaxfake import configuration, data, errors
from jaxfake.data import pipeline, tampered
from jaxfake.data.phantom import anatomy
from jaxfake.data.tampered import places
from jaxfake.data.tampered.windows import ALTERED, UNALTERED, Pairs

CONFIG = CONFIGS / "classifier.py:tiny"


def config(**changes):
  flags = [f"--config.data.{k}={v}" for k, v in changes.items()]
  argv = ["", f"--config={CONFIG}", "--config.data.name=tampered", *flags]
  argv += ["--config.data.size=64", "--config.data.phantom.images=80"]
  return configuration.parse(argv)[0].data


def test_pairs_stay_together_and_differ_under_the_mask_alone():
  c = config()
  dataset = data.prepare(c)
  assert dataset.classes == tampered.CLASSES
  owners = {}
  for split in ("train", "val", "test"):
    source = dataset.source(split)
    counts = dataset.facts["counts"][split]
    assert len(set(counts.values())) == 1 and sum(counts.values()) == len(
      source
    )
    ids, patients = source.column("original"), source.column("patient")
    for id, patient in zip(ids, patients, strict=True):
      assert owners.setdefault(id, split) == split
      assert owners.setdefault(patient, split) == split
  for i in range(0, 24, 3):
    same, injected, removed = (source[i + k] for k in range(3))
    assert not same["mask"].any() and same["method"] == "none"
    for item, kind in ((injected, "inject"), (removed, "remove")):
      assert item["original"] == same["original"] and kind in item["method"]
      outside = item["mask"] == 0
      assert 0 < (~outside).sum() < outside.size / 3
      np.testing.assert_array_equal(
        item["image"][outside], same["image"][outside]
      )
      assert (item["image"] != same["image"]).any()
  # Item i is a function of i alone, and columns say what items do.
  again = data.prepare(c).source(split)
  for i in (7, 2, 7):
    np.testing.assert_array_equal(again[i]["image"], source[i]["image"])
    for name in ("label", "id", "method", "touch_up", "patient"):
      assert source.column(name)[i] == source[i][name]


def test_masks_reach_a_step_by_name_and_two_classes_do():
  c = config(**{"tampered.binary": True, "tampered.jpeg": 75})
  dataset = data.prepare(c)
  assert dataset.classes == tampered.BINARY
  splits = pipeline.splits(dataset, c).reading("image", "mask", "label")
  item = splits.train[1]
  assert item["mask"].shape == item["image"].shape == (64, 64, 1)
  assert item["label"] == 1 and set(np.unique(item["mask"])) == {0, 255}
  kinds = {x.split()[0] for x in splits.train.column("method")}
  assert kinds == {"none", "inject", "remove"}
  # An untampered picture is compressed as well.
  plain = data.prepare(config()).source("train")[0]["image"]
  assert (dataset.source("train")[0]["image"] != plain).any()


def squares(**changes):
  """A train source of regions of 32 px, and the same of whole pictures."""
  changes |= {"phantom.nodules": True}
  regions = {"tampered.region": 32}
  if changes.get("tampered.four"):
    return data.prepare(config(**changes | regions)).source("train"), None
  return (
    data.prepare(config(**changes | x)).source("train") for x in (regions, {})
  )


@pytest.mark.parametrize("binary", [False, True])
def test_a_region_is_the_pixels_about_what_was_altered(binary):
  """Of the whole picture; an untampered one shows the place of a twin."""
  regions, whole = squares(**{"tampered.binary": binary})
  each, places_shown = (2 if binary else 3), set()
  for first in range(0, 12 * each, each):
    items = [regions[first + k] for k in range(each)]
    twins = []
    for item, at in zip(items[1:], range(first + 1, first + each), strict=True):
      assert item["image"].shape == item["mask"].shape == (32, 32, 1)
      full = whole[at]
      windows = np.lib.stride_tricks.sliding_window_view(
        full["mask"][..., 0], (32, 32)
      )
      same = (windows == item["mask"][..., 0]).all((2, 3))
      y, x = np.argwhere(same)[0]
      np.testing.assert_array_equal(
        full["image"][y : y + 32, x : x + 32], item["image"]
      )
      rows, columns = np.nonzero(item["mask"][..., 0])
      inner = 0 < y < 32 and 0 < x < 32  # Not moved by the picture's border.
      if inner:
        assert abs(rows.mean() - 15.5) < 3 and abs(columns.mean() - 15.5) < 3
      outside = item["mask"] == 0
      twins.append((item["image"] == items[0]["image"])[outside].all())
    assert any(twins) and not items[0]["mask"].any()
    places_shown.add(tuple(twins))
  assert binary or len(places_shown) > 1  # Now injected's, now removed's.


def test_four_classes_are_two_places_each_true_and_false():
  source, _ = squares(**{"tampered.four": True})
  assert tampered.FOUR == ("TB", "TM", "FB", "FM")
  for i in range(0, 40, 4):
    tb, tm, fb, fm = (source[i + k] for k in range(4))
    assert len({x["original"] for x in (tb, tm, fb, fm)}) == 1
    assert tb["method"] == tm["method"] == "none"
    assert fb["method"].startswith("remove ")
    assert fm["method"].startswith("inject ")
    for true, false in ((tb, fm), (tm, fb)):
      outside = false["mask"] == 0
      assert not true["mask"].any() and (~outside).sum() > 0
      np.testing.assert_array_equal(
        true["image"][outside], false["image"][outside]
      )
      assert (true["image"] != false["image"]).any()


def test_lung_without_a_lesion_is_not_taken_where_there_is_none(monkeypatch):
  source, _ = squares(**{"tampered.four": True})
  tb = 4 * 3
  assert not source[tb]["mask"].any()
  held = source._originals
  everywhere = {"mask": np.full_like(held[3]["mask"], 255)}

  class Ill:
    def __len__(self):
      return len(held)

    def __getitem__(self, i):
      return held[i] | everywhere

  monkeypatch.setattr(source, "_originals", Ill())
  told = r"a lesion in each of 100 places of \d+ pixels"
  with pytest.raises(errors.DataError, match=told):
    source[tb]


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"tampered.four": True}, "expected data.tampered.region"),
    (
      {"tampered.four": True, "tampered.region": 32, "tampered.binary": True},
      "no data.tampered.binary",
    ),
    (
      {"tampered.four": True, "tampered.region": 32},
      "expected originals with masks of lesions",
    ),
    ({"tampered.region": 3}, "region is 3: expected at least 6 pixels"),
  ],
)
def test_regions_that_cannot_be_are_refused(changes, message):
  with pytest.raises(errors.ConfigError, match=message):
    data.prepare(config(**changes))


def test_leaky_splits_part_pairs_and_patients_and_say_so():
  kept, leaky = (
    data.prepare(config(**{"tampered.binary": True, "tampered.leaky": leaky}))
    for leaky in (False, True)
  )
  parts = {x: leaky.source(x) for x in ("train", "val", "test")}
  column = lambda name: {k: x.column(name) for k, x in parts.items()}
  everything = lambda d: [i for x in parts for i in d.source(x).column("id")]
  assert sorted(everything(leaky)) == sorted(everything(kept))
  originals, patients = column("original"), column("patient")
  assert set(originals["train"]) & set(originals["test"])
  shared = set(patients["train"]) & set(patients["test"])
  assert leaky.facts["patient_overlap"]["train-test"] == len(shared) > 0
  assert kept.facts["patient_overlap"]["train-test"] == 0
  for split, labels in column("label").items():
    counts = leaky.facts["counts"][split]
    assert [*counts.values()] == [labels.count(0), labels.count(1)]
    assert leaky.facts["patients"][split] == len(set(patients[split]))
  # An original, wherever it stands, is what it was.
  plain = parts["test"].column("label").index(0)
  item = parts["test"][plain]
  assert item["id"] == parts["test"].column("id")[plain]
  assert item["patient"] == patients["test"][plain]
  split = next(x for x in parts if item["id"] in kept.source(x).column("id"))
  before = kept.source(split)
  same = before[before.column("id").index(item["id"])]
  np.testing.assert_array_equal(item["image"], same["image"])


def whole_of(source, k):
  """Of a set of three classes, what pair k is of."""
  plain, which = 3 * (k // 2), 1 + k % 2
  return source[plain], source[plain + which]


def test_pairs_show_one_square_as_it_is_and_altered():
  source = data.prepare(config(**{"tampered.draws": 2})).source("train")
  pairs = Pairs(source, 32, compressed=0.0, seed=0)
  assert len(pairs) == 2 * len(source) / 3
  squares = lambda x: np.lib.stride_tricks.sliding_window_view(
    x["image"][..., 0], (32, 32)
  )
  for k in range(12):
    pair, wholes = pairs[k], whole_of(source, k)
    assert pair["image"].shape == pair["mask"].shape == (2, 32, 32, 1)
    ((y, x),) = np.argwhere(
      (squares(wholes[1]) == pair["image"][1, ..., 0]).all((2, 3))
    )
    np.testing.assert_array_equal(
      squares(wholes[0])[y, x], pair["image"][0, ..., 0]
    )
    altered = wholes[1]["mask"][y : y + 32, x : x + 32] > 0
    assert altered.any()
    for mask, value in zip(pair["mask"], (UNALTERED, ALTERED), strict=True):
      np.testing.assert_array_equal(mask, np.where(altered, value, 0))
    np.testing.assert_array_equal(pairs[k]["image"], pair["image"])
  other = Pairs(source, 32, compressed=0.0, seed=1)
  assert any((other[k]["image"] != pairs[k]["image"]).any() for k in range(6))


def test_pairs_are_compressed_alike():
  source = data.prepare(config()).source("train")
  plain, pressed = (Pairs(source, 32, share, seed=0) for share in (0.0, 1.0))
  for k in range(6):
    before, after = plain[k], pressed[k]
    assert all((before["image"] != after["image"]).any((1, 2, 3)))
    np.testing.assert_array_equal(before["mask"], after["mask"])
    # Blocks in which nothing was altered stay alike.
    blocks = lambda x: x.reshape(4, 8, 4, 8).any((1, 3))
    altered = blocks(after["mask"][1, ..., 0] > 0)
    differ = blocks(np.subtract(*after["image"][..., 0].astype(int)) != 0)
    assert not (differ & ~altered).any()


def test_where_in_a_window_it_was_altered_tells_nothing():
  source = data.prepare(config(**{"tampered.most_mm": 30.0})).source("train")
  pairs = (Pairs(source, 24, compressed=0.0, seed=s) for s in range(3))
  masks = [x[k]["mask"][1, ..., 0] > 0 for x in pairs for k in range(80)]
  middle = slice(6, 18)
  share = np.mean([mask[middle, middle] for mask in masks])
  assert share < 2 * np.mean(masks)


def test_train_originals_are_altered_again_and_again():
  binary = {"tampered.binary": True}
  once = data.prepare(config(**binary))
  thrice = data.prepare(config(**binary | {"tampered.draws": 3}))
  for split, times in (("train", 3), ("val", 1), ("test", 1)):
    one, more = once.source(split), thrice.source(split)
    assert len(more) == times * len(one)
    assert len(set(more.column("id"))) == len(more)
    assert set(more.column("patient")) == set(one.column("patient"))
  one, more = once.source("train"), thrice.source("train")
  # The first draw is that of a set of one draw.
  for i in (0, 1, 2, 3):
    at = 6 * (i // 2) + i % 2
    assert more[at]["id"] == one[i]["id"]
    np.testing.assert_array_equal(more[at]["image"], one[i]["image"])
  altered = [more[i] for i in (1, 3, 5)]
  assert len({x["mask"].tobytes() for x in altered}) == 3
  assert once.facts["fingerprint"] != thrice.facts["fingerprint"]


def test_what_is_too_small_for_a_window_is_mirrored():
  source = data.prepare(config()).source("train")
  pair, whole = Pairs(source, 80, compressed=0.0, seed=0)[0], source[1]
  for name in ("image", "mask"):
    square = pair[name][1]
    np.testing.assert_array_equal(square[:64, :64], whole[name])
    np.testing.assert_array_equal(square[64:], square[48:64][::-1])


def test_lesions_of_the_originals_are_taken_out():
  c = config(**{"phantom.nodules": True})
  source = data.prepare(c).source("train")
  of = tampered.originals(c).source("train")
  for at in range(8):
    lesions, filled = of[at]["mask"] > 0, source[3 * at + 2]["mask"] > 0
    assert (lesions & filled).any()


@settings(max_examples=30, deadline=None)
@given(
  st.integers(0, 2**31),
  st.floats(4, 200),
  st.tuples(st.integers(40, 90), st.integers(40, 90)),
)
def test_drawn_boxes_lie_in_the_picture(seed, mm, shape):
  rng = np.random.default_rng(seed)
  gray = rng.integers(0, 256, shape).astype(np.uint8)
  box = places.in_lung(gray, places.side(mm, shape), rng)
  assert box.inside(shape)
  lesion = places.of_lesion(gray > 250, rng)
  assert lesion is None or lesion.inside(shape)


def test_the_rule_for_lungs_finds_the_phantoms():
  dark = []
  for i in range(0, 40, 4):
    image = anatomy.radiograph(5, i, size=96)["image"]
    lungs = places.lungs(image)
    assert lungs.any()
    dark.append(image[lungs].mean() < image[20:70].mean())
  assert np.mean(dark) >= 0.9


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"tampered.inject": "nodul"}, "did you mean nodule"),
    ({"tampered.most_mm": 1.0}, "least_mm is 8.0, most_mm 1.0"),
    ({"tampered.touch_up": 2.0}, "touch_up is 2.0: expected a share"),
    ({"tampered.jpeg": 101}, "jpeg is 101: expected a quality"),
    ({"tampered.inject": "learnt"}, "data.tampered.inject_model is empty"),
    ({"tampered.remove_model": "no"}, "no is not a run's folder"),
    ({"tampered.real": "tampered"}, "data.tampered.real is 'tampered'"),
  ],
)
def test_mistakes_are_named(changes, said):
  with pytest.raises(errors.ConfigError, match=said):
    data.prepare(config(**changes))
