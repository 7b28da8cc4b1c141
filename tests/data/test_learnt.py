"""What an inpainter learns from and is asked, and where its answer goes."""

from types import SimpleNamespace

import numpy as np
from places import CONFIGS
import pytest
from scipy import ndimage

from jaxfake import configuration, data, errors
from jaxfake.data.phantom import anatomy
from jaxfake.data.tampered import learnt, region, scene
from jaxfake.data.tampered.region import Box

PHANTOM = anatomy.radiograph(0, 3, size=128)["image"].astype(np.int32)
CONFIG = CONFIGS / "inpainter.py:tiny"
BOXES = Box(20, 10, 16, 14), Box(30, 40, 60, 50), Box(0, 60, 12, 40)


def whole(box, shape=PHANTOM.shape):
  """Bool (h, w) of a box's ellipse."""
  mask = np.zeros(shape, bool)
  mask[box.place] = region.ellipse(box)
  return mask


def of(values, box, **fields):
  return scene.seen(values, box, **fields)._replace(ends=scene.ends(PHANTOM))


@pytest.mark.parametrize("box", BOXES)
def test_nothing_of_the_region_gets_through(box):
  """Shrunk or not: neither to the network nor into the fill."""
  questions, fills = [], []
  for values in PHANTOM, np.where(whole(box), 255 - PHANTOM, PHANTOM):
    question = learnt.asked(of(values, box), 32, np.random.default_rng(0))
    questions.append(np.where(question.mask, 0, question.image))
    flat = np.zeros_like(question.image)
    filled, mask = learnt.put_back(of(values, box), flat)
    fills.append(filled[mask])
  np.testing.assert_array_equal(*questions)
  np.testing.assert_array_equal(*fills)


def test_a_window_is_the_picture_s_own_pixels_and_the_fill_is_the_network_s():
  box = Box(50, 40, 16, 12)
  question = learnt.asked(of(PHANTOM, box), 32, np.random.default_rng(0))
  low, high = scene.ends(PHANTOM)
  place = PHANTOM[30:62, 42:74]
  want = np.clip(2 * (place - low) / (high - low) - 1, -1, 1)
  np.testing.assert_allclose(question.image, want, atol=1e-6)
  np.testing.assert_array_equal(question.mask, whole(box)[30:62, 42:74])
  answer = np.random.default_rng(1).uniform(-1, 1, (32, 32))
  filled, mask = learnt.put_back(of(PHANTOM, box), answer)
  gray = low + (answer[10:22, 8:24] + 1) / 2 * (high - low)
  np.testing.assert_allclose(filled[mask], gray[mask], atol=1e-3)


def test_a_large_region_is_filled_at_the_right_place_without_a_seam():
  y, x = np.indices((128, 128))
  values = (60 + x + y // 2).astype(np.int32)
  box = Box(30, 40, 60, 50)
  # A network that knows the ramp, but 20 levels too bright.
  seen = of(values, box)
  question = learnt.asked(seen, 32, np.random.default_rng(0))
  clean, _ = learnt.window(values, box, 32)
  answer = learnt.scaled(clean + 20, seen.ends)
  filled, mask = learnt.put_back(seen, answer)
  assert question.mask.mean() < 0.5
  inner = ndimage.binary_erosion(mask, iterations=8)
  np.testing.assert_allclose(filled[inner], values[box.place][inner], atol=21)
  rim = mask & ~ndimage.binary_erosion(mask)
  np.testing.assert_allclose(filled[rim], values[box.place][rim], atol=2)


def test_the_method_asks_and_puts_back():
  asked = []

  def fill(*question):
    asked.append(question)
    return question[2].clip(-1, 1)

  box = BOXES[0]
  model = SimpleNamespace(size=32, fill=fill)
  one, mask = scene.tampered(PHANTOM, box, "inject", "learnt", 5, model=model)
  two, _ = scene.tampered(PHANTOM, box, "remove", "learnt", 5, model=model)
  np.testing.assert_array_equal(one, two)
  np.testing.assert_array_equal(mask, whole(box))
  # An answer that was given elsewhere does the same.
  question = learnt.asked(
    scene.seen(PHANTOM, box), 32, np.random.default_rng(5)
  )
  for part, same in zip(question, asked[0], strict=True):
    np.testing.assert_array_equal(part, same)
  answer = learnt.Answer(fill(*question))
  again, _ = scene.tampered(PHANTOM, box, "inject", "learnt", 5, model=answer)
  np.testing.assert_array_equal(again, one)


def sources(fill, **changes):
  changes = {"fill": fill} | changes
  argv = [f"--config.data.inpainting.{k}={v}" for k, v in changes.items()]
  c = configuration.parse(["", f"--config={CONFIG}", *argv])[0].data
  return data.prepare(c)


def test_windows_with_a_nodule_and_without_differ_under_the_mask_alone():
  plain, nodule = sources("plain"), sources("nodule")
  assert plain.facts["content_sha256"] != nodule.facts["content_sha256"]
  one, two = (x.source("train") for x in (plain, nodule))
  other = sources("nodule", seed=1).source("train")
  brighter = []
  for i in range(8):
    a, b = one[i], two[i]
    assert a["image"].shape == a["mask"].shape == (32, 32, 1)
    hidden = a["mask"] > 0
    assert 0 < hidden.sum() < hidden.size / 3 and hidden[16, 16]
    np.testing.assert_array_equal(a["mask"], b["mask"])
    np.testing.assert_array_equal(a["image"][~hidden], b["image"][~hidden])
    brighter.append(b["image"][hidden].mean() - a["image"][hidden].mean())
    assert (other[i]["image"] != b["image"]).any()
    np.testing.assert_array_equal(two[i]["image"], b["image"])
    for name in ("label", "patient", "id"):
      assert two.column(name)[i] == b[name]
  assert min(brighter) > 0


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"fill": "nodul"}, "data.inpainting.fill is 'nodul'"),
    ({"most_mm": 1.0}, "least_mm is 8.0, most_mm 1.0"),
    ({"seed": -1}, "data.inpainting.seed is -1"),
    ({"real": "tampered"}, "data.inpainting.real is 'tampered'"),
  ],
)
def test_mistakes_are_named(changes, said):
  with pytest.raises(errors.ConfigError, match=said):
    sources(**{"fill": "plain"} | changes)
