"""What devices send each other in a compiled program, read from its HLO."""

from collections.abc import Callable
import math
import re
from typing import NamedTuple

# Bytes that each of n devices sends in a ring, from the bytes that it holds
# afterwards. All of the program's devices take part, as in data parallelism.
RING: dict[str, Callable[[int, int], float]] = {
  "all-reduce": lambda n, size: 2 * (n - 1) / n * size,
  "all-gather": lambda n, size: (n - 1) / n * size,
  "reduce-scatter": lambda n, size: (n - 1) * size,
  "all-to-all": lambda n, size: (n - 1) / n * size,
  "collective-permute": lambda n, size: size,
}
# Of an asynchronous pair only the -start is counted.
_INSTRUCTION = re.compile(
  rf"^\s*(?:ROOT )?\S+ = (.+?) ({'|'.join(RING)})(-start)?\(", re.MULTILINE
)
# These -starts yield what they were given, then what they will have made.
_WITH_OPERANDS = ("all-gather", "collective-permute")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")


class Collective(NamedTuple):
  kind: str  # One of RING.
  bytes: int  # What a device holds of it afterwards.

  def sent(self, n: int) -> float:
    """Bytes that each of n devices sends."""
    return RING[self.kind](n, self.bytes)


def read(hlo: str) -> list[Collective]:
  """Every collective of a program's text, in order; one in a loop's body
  counts once."""
  collectives = []
  for result, kind, start in _INSTRUCTION.findall(hlo):
    if start and kind in _WITH_OPERANDS:
      result = _elements(result)[1]
    collectives.append(Collective(kind, size(result)))
  return collectives


def size(shape: str) -> int:
  """Bytes of an HLO type: "(f32[2,3]{1,0}, bf16[])" -> 26."""
  bits = 0
  for name, sides in _ARRAY.findall(shape):
    each = re.search(r"\d+", name)  # As in bf16, f8e4m3fn; 8 for pred.
    count = math.prod(int(side) for side in sides.split(",") if side)
    bits += count * (int(each[0]) if each else 8 * (name == "pred"))
  return math.ceil(bits / 8)


def _elements(shape: str) -> list[str]:
  """The outermost elements of a tuple's type."""
  elements, depth = [""], 0
  for character in shape.strip()[1:-1]:
    depth += (character in "([{") - (character in ")]}")
    if character == "," and depth == 0:
      elements.append("")
    else:
      elements[-1] += character
  return elements
