"""Checkpoints that a disk has damaged, or that cannot be written or read."""

import json
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfake import errors
from jaxfake.runtime import devices
from jaxfake.training import checkpoint

STEPS = 2, 4


def state(step):
  _, _, everywhere = devices.mesh_and_shardings()
  made = {
    "step": jnp.int32(step),
    "kernel": jnp.sin(jnp.arange(3000.0) + step).reshape(30, 100),
    "bias": jnp.full(3, step / 7),
  }
  return jax.device_put(made, everywhere)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  path = tmp_path_factory.mktemp("whole") / "checkpoints"
  with checkpoint.Checkpoints(path) as checkpoints:
    for step in STEPS:
      checkpoints.save(step, state(step))
  return path


@pytest.fixture
def saved(whole, tmp_path):
  return pathlib.Path(shutil.copytree(whole, tmp_path / "checkpoints"))


def files(folder):
  return sorted(x for x in folder.rglob("*") if x.is_file())


def largest(folder):
  return max(files(folder), key=lambda x: x.stat().st_size)


def flip(path, at=None):
  data = bytearray(path.read_bytes())
  data[len(data) // 2 if at is None else at] ^= 16
  path.write_bytes(data)


def empty(folder):
  shutil.rmtree(folder)
  folder.mkdir()


# What a file system leaves after a power cut, or a disk of what it held.
DAMAGES = {
  "truncated": lambda x: os.truncate(largest(x), 100),
  "zero bytes": lambda x: [os.truncate(f, 0) for f in files(x)],
  "flipped": lambda x: flip(largest(x)),
  "no arrays": lambda x: shutil.rmtree(x / "default"),
  "no metadata": lambda x: (x / checkpoint.METADATA).unlink(),
  "metadata": lambda x: flip(x / checkpoint.METADATA, 0),
  "no manifest": lambda x: (x / "default/manifest.ocdbt").unlink(),
  "empty": empty,
}


@pytest.fixture
def said(monkeypatch):
  lines = []
  monkeypatch.setattr(checkpoint.progress, "say", lines.append)
  return lines


def equal(a, b):
  return all(map(np.array_equal, *map(jax.tree.leaves, (a, b))))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_one_before_is_taken_and_said_in_a_line(saved, damage, said):
  damage(saved / "4")
  for read_only in (True, False):
    said.clear()
    with checkpoint.Checkpoints(saved, read_only=read_only) as checkpoints:
      step, found = checkpoints.restore_last(state(0), "give up")
      assert step == 2 and equal(found, state(2))
      assert len(said) == 1 and "\n" not in said[0]
      assert f"step 4 in {saved} is damaged (" in said[0]
      assert (saved / "4").exists() == read_only
      if not read_only:  # The same step can be saved again.
        checkpoints.save(4, state(4))
  with checkpoint.Checkpoints(saved) as checkpoints:
    step, found = checkpoints.restore_last(state(0), "give up")
  assert step == 4 and equal(found, state(4)) and len(said) == 1


def test_what_orbax_refuses_to_open_is_put_aside(saved, said):
  flip(saved / "4" / checkpoint.METADATA, 5)  # A letter of a name.
  with checkpoint.Checkpoints(saved, read_only=True) as checkpoints:
    assert checkpoints.restore_last(state(0), "give up")[0] == 4
  with checkpoint.Checkpoints(saved) as checkpoints:
    assert checkpoints.restore_last(state(0), "give up")[0] == 2
  assert len(said) == 1 and "put aside as 4.damaged" in said[0]
  assert (saved / "4.damaged").is_dir()


def test_any_changed_byte_is_noticed_or_harmless(saved, said):
  rng = np.random.default_rng(0)
  names = [x.relative_to(saved) for x in files(saved / "4")]
  taken = []
  for i in range(40):
    path = saved / names[i % len(names)]
    kept = path.read_bytes()
    flip(path, rng.integers(len(kept)))
    with checkpoint.Checkpoints(saved, read_only=True) as checkpoints:
      step, found = checkpoints.restore_last(state(0), "give up")
    path.write_bytes(kept)
    assert equal(found, state(step)), path
    taken.append(step)
  assert set(taken) == set(STEPS)  # Some are noticed, some harmless.


def test_where_none_is_whole_a_line_says_what_to_do(saved):
  for step in STEPS:
    empty(saved / str(step))
  with checkpoint.Checkpoints(saved, read_only=True) as checkpoints:
    with pytest.raises(errors.DataError) as caught:
      checkpoints.restore_last(state(0), "delete it")
    with pytest.raises(errors.DataError, match=r"step 4 in .* is damaged"):
      checkpoints.restore(4, state(0))
  text = str(caught.value)
  assert str(saved) in text and "step 2" in text and "delete it" in text
  assert "\n" not in text


def test_other_shapes_and_items_are_a_line(saved):
  other = state(0) | {"kernel": jnp.zeros((3, 7))}
  more = state(0) | {"more": jnp.zeros(3)}
  for like in (other, more):
    with (
      checkpoint.Checkpoints(saved, read_only=True) as checkpoints,
      pytest.raises(errors.DataError) as caught,
    ):
      checkpoints.restore(4, like)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_what_may_not_be_read_is_not_taken_for_damaged(saved, monkeypatch):
  def refused(*args, **kwargs):
    raise PermissionError(13, "Permission denied", str(saved / "4"))

  with checkpoint.Checkpoints(saved) as checkpoints:
    monkeypatch.setattr(checkpoints._reader, "restore", refused)
    with pytest.raises(errors.DataError, match=r"cannot read .*Permission"):
      checkpoints.restore_last(state(0), "give up")
  assert (saved / "4").exists()


@pytest.mark.parametrize(
  "error",
  [
    OSError(30, "Read-only file system"),
    OSError(28, "No space left on device"),
    PermissionError(13, "Permission denied"),
  ],
)
def test_what_cannot_be_written_is_a_line(tmp_path, error, monkeypatch):
  path = tmp_path / "checkpoints"

  def refused(*args, **kwargs):
    raise error

  with (
    checkpoint.Checkpoints(path) as checkpoints,
    monkeypatch.context() as patch,
    pytest.raises(errors.SaveError, match=error.strerror) as caught,
  ):
    patch.setattr(checkpoints._manager, "save", refused)
    checkpoints.save(2, state(2))
  assert str(path) in str(caught.value) and "\n" not in str(caught.value)
  monkeypatch.setattr(checkpoint.ocp, "CheckpointManager", refused)
  with pytest.raises((errors.DataError, errors.SaveError)) as caught:
    checkpoint.Checkpoints(path)
  assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_older_runs_without_a_hash_are_read(saved, said):
  about = saved / "4" / checkpoint.METADATA
  about.write_text(
    json.dumps(json.loads(about.read_text()) | {"custom_metadata": {}})
  )
  with checkpoint.Checkpoints(saved, read_only=True) as checkpoints:
    step, found = checkpoints.restore_last(state(0), "give up")
  assert step == 4 and equal(found, state(4)) and not said


def test_the_best_falls_back_to_the_best_before(tmp_path, said):
  with checkpoint.Best(tmp_path, "loss") as best:
    for step, loss in ((1, 0.5), (2, 0.7), (3, 0.25)):
      best.offer(step, loss, state(step))
  DAMAGES["flipped"](tmp_path / "best/3")
  with checkpoint.Best(tmp_path, "loss", read_only=True) as best:
    assert equal(best.restore(state(0)), state(1))
    assert best.entry == {"step": 1}
  assert len(said) == 1 and "thresholds are of the damaged one" in said[0]
  empty(tmp_path / "best/1")
  with (
    checkpoint.Best(tmp_path, "loss", read_only=True) as best,
    pytest.raises(errors.DataError, match="another --workdir"),
  ):
    best.restore(state(0))
