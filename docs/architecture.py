"""Draws docs/architecture.svg: the rooms of jaxfake and who imports whom.

    python docs/architecture.py

A room is a package, or a module that lies beside the packages. An arrow goes
from a room to one that it imports anywhere in its code, thicker where more
modules do so. Rooms stand above those that they import. Arrows that go up, and
so close a circle, are red. An arrow is pale where a way over other rooms leads
to the same place.
"""

import ast
import collections
import itertools
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"
WIDTH, ROW, HIGH, GAP, LETTER = 1100, 92, 26, 18, 7.3  # Pixels.


def room(module: str, packages: set[str]) -> str:
  """The room of a module below jaxfake: "data" of "data.feed"."""
  first = module.partition(".")[0]
  return f"{first}/" if first in packages else first


def imported(file: pathlib.Path) -> set[str]:
  """Modules below jaxfake that a file imports, functions' imports too.

  "from jaxfake.data import feed" gives "data.feed": whether that is a module or
  a name in one, its room is the same.
  """
  found = set()
  for node in ast.walk(ast.parse(file.read_bytes())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
      found |= {f"{node.module}.{alias.name}" for alias in node.names}
  return {x.partition(".")[2] for x in found if x.startswith("jaxfake.")}


def arrows(package: pathlib.Path) -> tuple[list[str], collections.Counter]:
  """All rooms, and (importer, imported) -> how many modules do it."""
  files = sorted(package.rglob("*.py"))
  packages = {x.name for x in package.iterdir() if (x / "__init__.py").exists()}
  rooms, found = set(), collections.Counter()
  known = packages | {x.stem for x in package.glob("*.py")}
  for file in files:
    parts = file.relative_to(package).with_suffix("").parts
    if parts == ("__init__",):
      continue
    here = room(".".join(parts), packages)
    rooms.add(here)
    there = {
      room(x, packages) for x in imported(file) if x.partition(".")[0] in known
    }
    found.update((here, other) for other in there - {here})
  return sorted(rooms), found


def circles(rooms, pairs) -> list[list[str]]:
  """Rooms that reach each other, in groups of two or more."""
  reach = reachable(rooms, pairs)
  groups = {
    tuple(sorted({a, *(b for b in reach[a] if a in reach[b])})) for a in rooms
  }
  return [list(group) for group in sorted(groups) if len(group) > 1]


def reachable(rooms, pairs) -> dict[str, set[str]]:
  reach = {a: {b for x, b in pairs if x == a} for a in rooms}
  for middle, a in itertools.product(rooms, rooms):
    if middle in reach[a]:
      reach[a] |= reach[middle]
  return reach


def levels(rooms, pairs) -> dict[str, int]:
  """0 of rooms that import nothing; else one above the highest imported.

  Inside a circle the room that more others import goes below.
  """
  reach = reachable(rooms, pairs)
  users = collections.Counter(b for _, b in pairs)
  rank = {a: (users[a], a) for a in rooms}
  down = {(a, b) for a, b in pairs if a not in reach[b] or rank[a] < rank[b]}
  level = dict.fromkeys(rooms, 0)
  for _ in rooms:
    for a, b in down:
      level[a] = max(level[a], level[b] + 1)
  return level


def places(rooms, pairs) -> dict[str, tuple[float, int]]:
  """(x of the middle, row from the top) of each room.

  Rows wider than the picture are broken. Within one, rooms stand near those
  that they import and that import them.
  """
  level = levels(rooms, pairs)
  rows = []
  for height in sorted(set(level.values()), reverse=True):
    row = [a for a in rooms if level[a] == height]
    while row:
      fitting = next(
        n for n in range(len(row), 0, -1) if sum(map(wide, row[:n])) <= WIDTH
      )
      rows.append(row[:fitting])
      row = row[fitting:]
  near = collections.defaultdict(set)
  for a, b in pairs:
    near[a].add(b)
    near[b].add(a)
  place = {}
  for number, row in enumerate(rows):
    place |= spread(row, number)
  for _ in range(30):
    middle = {
      a: sum(place[b][0] for b in near[a]) / len(near[a]) if near[a] else x
      for a, (x, _) in place.items()
    }
    for number, row in enumerate(rows):
      place |= spread(sorted(row, key=lambda a: (middle[a], a)), number)
  return place


def wide(name: str) -> float:
  """Of a room's box and the gap beside it."""
  return LETTER * len(name) + 20 + GAP


def spread(row, number) -> dict[str, tuple[float, int]]:
  """A row's rooms in order, evenly over the width."""
  free = (WIDTH - sum(map(wide, row))) / (len(row) + 1)
  place, x = {}, free
  for name in row:
    place[name] = x + wide(name) / 2, number
    x += wide(name) + free
  return place


def svg(rooms, count) -> str:
  """The picture."""
  place = places(rooms, count)
  reach = reachable(rooms, count)
  height = ROW * (1 + max(row for _, row in place.values()))
  top = {name: ROW * row + (ROW - HIGH) / 2 for name, (_, row) in place.items()}
  lines = []
  for (a, b), n in sorted(count.items()):
    up = place[a][1] >= place[b][1]
    passed = any(b in reach[x] for y, x in count if y == a and x not in (a, b))
    colour = "#c22" if up else "#b9c4d0" if passed else "#3d5a80"
    # Not on the arrow that comes down the same way.
    x0, x1 = (place[x][0] + 14 * up for x in (a, b))
    y0, y1 = (top[a], top[b] + HIGH) if up else (top[a] + HIGH, top[b])
    middle = (y0 + y1) / 2
    lines.append(
      (
        not passed,
        f'<path d="M{x0:.0f} {y0:.0f}C{x0:.0f} {middle:.0f} {x1:.0f}'
        f' {middle:.0f} {x1:.0f} {y1:.0f}" stroke="{colour}" stroke-width='
        f'"{0.8 + 0.25 * min(n, 10):.2f}" marker-end="url(#{colour[1:]})">'
        f"<title>{a} imports {b}: {n}</title></path>",
      )
    )
  boxes = []
  for name in rooms:
    x, w = place[name][0], wide(name) - GAP
    fill = "#e8eef5" if name.endswith("/") else "#fff"
    boxes.append(
      f'<rect x="{x - w / 2:.0f}" y="{top[name]:.0f}" width="{w:.0f}" height='
      f'"{HIGH}" rx="5" fill="{fill}" stroke="#3d5a80"/><text x="{x:.0f}" y='
      f'"{top[name] + 17:.0f}">{name}</text>'
    )
  heads = "".join(
    f'<marker id="{c}" viewBox="0 0 6 6" refX="5.5" refY="3" markerWidth="6"'
    ' markerHeight="6" markerUnits="userSpaceOnUse" orient="auto"><path d='
    f'"M0 0L6 3L0 6z" fill="#{c}"/></marker>'
    for c in ("c22", "b9c4d0", "3d5a80")
  )
  return "\n".join(
    [
      f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
      ' font-family="monospace" font-size="12" text-anchor="middle">',
      f"<title>{said(rooms, count)}</title>",
      f'<defs>{heads}</defs><rect width="100%" height="100%" fill="#fff"/>',
      '<g fill="none">',
      *(line for _, line in sorted(lines)),
      "</g>",
      *boxes,
      "</svg>\n",
    ]
  )


def said(rooms, count) -> str:
  """The counts, in a line."""
  closed = circles(rooms, count)
  text = f"{len(rooms)} rooms, {len(count)} arrows, "
  if not closed:
    return text + "no circle"
  return text + "circles: " + "; ".join(" and ".join(x) for x in closed)


def main() -> int:
  rooms, count = arrows(ROOT / "jaxfake")
  PICTURE.write_text(svg(rooms, count))
  print(f"{said(rooms, count)}: {PICTURE.relative_to(ROOT)}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
