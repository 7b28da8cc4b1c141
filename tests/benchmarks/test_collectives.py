"""What devices send each other: read from text, and from our own steps."""

import pytest

from jaxfake.benchmarks import collectives


@pytest.mark.parametrize(
  ("line", "kind", "size"),
  [
    ("%a.1 = f32[8,4]{1,0} all-reduce(%p), channel_id=1", "all-reduce", 128),
    ("ROOT a = bf16[8]{0:T(256)} all-reduce(p)", "all-reduce", 16),
    ("%a = f32[] all-reduce(%p), to_apply=%sum", "all-reduce", 4),
    (
      "%a = (f32[64]{0}, /*index=1*/pred[3]{0}) all-reduce(%p, %q)",
      "all-reduce",
      259,
    ),
    ("%a = (f32[4]{0}, s8[4]{0}) all-reduce-start(%p, %q)", "all-reduce", 20),
    ("%g = f32[8,4]{1,0} all-gather(%p), dimensions={0}", "all-gather", 128),
    (
      "%g = (f32[1,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%p)",
      "all-gather",
      128,
    ),
    (
      "%g = ((f32[1]{0}, u8[2]{0}), (f32[8]{0}, u8[16]{0}))"
      " all-gather-start(%p, %q)",
      "all-gather",
      48,
    ),
    ("%r = f16[3]{0} reduce-scatter(%p)", "reduce-scatter", 6),
    (
      "%c = (c64[5]{0}, c64[5]{0}, u32[], u32[]) collective-permute-start(%p)",
      "collective-permute",
      40,
    ),
    ("%t = f8e4m3fn[6]{0} all-to-all(%p)", "all-to-all", 6),
    ("%s = s4[5]{0} collective-permute(%p)", "collective-permute", 3),
  ],
)
def test_a_collective_is_read(line, kind, size):
  found = collectives.read(f"HloModule m\n  {line}\n")
  assert found == [collectives.Collective(kind, size)]


def test_only_the_start_of_a_pair_and_no_use_of_one_is_counted():
  text = """
ENTRY %main {
  %all-reduce.1 = (f32[4]{0}, f32[2]{0}) all-reduce(%p, %q), metadata={
  %get-tuple-element = f32[4]{0} get-tuple-element(%all-reduce.1), index=0
  %s = f32[9]{0} all-reduce-start(%x), to_apply=%sum
  %d = f32[9]{0} all-reduce-done(%s)
  %r = ((f32[8]{0}), f32[2]{0}) async-start(%y), calls=%wrapped_reduce_scatter
  %f = f32[2]{0} fusion(%d), kind=kLoop, calls=%fused_all-reduce
}
"""
  found = collectives.read(text)
  assert [c.bytes for c in found] == [24, 36]


@pytest.mark.parametrize(
  ("kind", "held", "sent"),
  [  # 8 devices, each of which starts with 80 bytes, or ends with them.
    ("all-reduce", 80, 140),
    ("all-gather", 80, 70),
    ("reduce-scatter", 10, 70),
    ("all-to-all", 80, 70),
    ("collective-permute", 80, 80),
  ],
)
def test_a_ring_sends(kind, held, sent):
  assert collectives.Collective(kind, held).sent(8) == sent
