"""Where compiled programs are kept."""

import pathlib

from jaxfake import platform


def processor(monkeypatch, text):
  def read(path, *args):
    assert str(path) == "/proc/cpuinfo"
    if text is None:
      raise FileNotFoundError(path)
    return text

  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, "read_text", read)
    return platform._processor()


def test_processors_of_other_instructions_share_no_compiled_programs(
  monkeypatch,
):
  """A program compiled for AVX-512 ends another processor's run by SIGILL."""
  one = "processor: 0\nmodel name: A\nflags\t\t: fpu avx2\n" * 2
  same_instructions = one.replace("model name: A", "model name: B")
  other = one.replace("avx2", "avx2 avx512f")
  arm = "Features\t: fp asimd\n"
  found = [
    processor(monkeypatch, x)
    for x in (one, same_instructions, other, arm, None)
  ]
  assert found[0] == found[1]
  assert len(set(found)) == 4
