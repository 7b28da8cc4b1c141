"""Jobs of an experiment: each done once, a failure where it belongs."""

import ml_collections
import pytest

from jaxfake import errors
from jaxfake.experiments import jobs
from jaxfake.runtime import disk


def config(**changes):
  return ml_collections.ConfigDict({"lr": 0.1, "total_steps": 4} | changes)


def finish(c, path) -> int:
  path.mkdir(exist_ok=True)
  disk.write_json(path / "config.json", c.to_dict())
  disk.write_json(path / "result.json", {"config": c.to_dict()})
  return 0


def test_a_run_is_done_once_and_goes_on_to_more_steps(tmp_path):
  job = jobs.of_run("a", config(), tmp_path / "a", finish)
  assert not job.done and job.work() == 0
  assert jobs.of_run("a", config(), tmp_path / "a", finish).done
  more = jobs.of_run("a", config(total_steps=8), tmp_path / "a", finish)
  assert not more.done


def test_another_run_in_its_place_is_named(tmp_path):
  finish(config(), tmp_path / "a")
  with pytest.raises(errors.ConfigError, match=r"lr was 0.1, now 0.2"):
    jobs.of_run("a", config(lr=0.2), tmp_path / "a", finish)


def test_a_chain_ends_with_the_first_code(capsys):
  ran = []

  def job(name, code=0, done=False):
    return jobs.Job(name, done, lambda: ran.append(name) or code)

  chain = [job("a", done=True), job("b"), job("c", 75), job("d")]
  assert jobs.chain(chain) == 75 and ran == ["b", "c"]
  said = capsys.readouterr().out
  assert "[1 of 4] a: done before" in said and "[4 of 4]" not in said


def test_each_goes_on_after_a_failure_and_not_after_an_interruption(capsys):
  ran, written = [], []

  def fails():
    raise errors.RunError("NaN at step 3")

  def job(name, code=0):
    return jobs.Job(name, False, lambda: ran.append(name) or code)

  alike = [job("a"), jobs.Job("b", False, fails), job("c")]
  code, failed = jobs.each(alike, lambda failed: written.append(dict(failed)))
  assert code == 1 and failed == {"b": "NaN at step 3"} and ran == ["a", "c"]
  assert written == [{}, failed]
  assert "left at this rate" in capsys.readouterr().out
  ran.clear()
  assert jobs.each([job("a", 130), job("b")], print) == (130, {})
  assert ran == ["a"]
