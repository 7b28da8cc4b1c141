"""Results as Markdown and as one self-contained HTML page."""

import base64
from collections.abc import Mapping
import pathlib
import re
from typing import Any
import urllib.parse

import jinja2

_PAGE = jinja2.Environment(autoescape=True).from_string("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto;
         max-width: 72rem; padding: 0 1rem }
  .wide { overflow-x: auto }
  table { border-collapse: collapse; white-space: nowrap }
  th, td { padding: .3rem .7rem; text-align: right;
           border-bottom: 1px solid #ddd }
  th:first-child, td:first-child { text-align: left }
  img { max-width: 100%; height: auto }
  .row { display: flex; flex-wrap: wrap; gap: 1rem }
  .row figure { margin: 0; flex: 0 1 21rem }
  figcaption { font-size: .85rem; color: #555 }
</style>
<h1>{{ title }}</h1>
{% for kind, part in parts -%}
{% if kind == "heading" -%}
<h2>{{ part }}</h2>
{% elif kind == "text" -%}
<p>{{ part }}</p>
{% elif kind == "table" -%}
<div class="wide"><table>
<tr>{% for name in part[0] %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in part -%}
<tr>{% for cell in row.values() %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor -%}
</table></div>
{% elif kind == "row" -%}
<div class="row">
{% for path in part -%}
<figure><img alt="{{ path.stem }}"
  src="data:image/png;base64,{{ encoded(path) }}">
<figcaption>{{ path.stem }}</figcaption></figure>
{% endfor -%}
</div>
{% else -%}
<p><img alt="{{ part.stem }}"
  src="data:image/png;base64,{{ encoded(part) }}"></p>
{% endif -%}
{% endfor -%}
</html>
""")


class Heading(str):
  """A part of a page that begins a section."""


# Ends of the names of what as many real images of a split that is held out
# would reach; the last in older results.
FLOORS = "_test", "_val", "_held_out"


def floor(figures: Mapping, name: str) -> Any:
  """What stands beside a generator's figure as its floor, or None."""
  return next((figures[name + x] for x in FLOORS if name + x in figures), None)


def count(n: int | None) -> str:
  """1234567 -> "1.23 M"."""
  if n is None:
    return "-"
  for unit, name in ((1e6, "M"), (1e3, "k")):
    if n >= unit:
      return f"{n / unit:.3g} {name}"
  return str(n)


def origin(results: list[dict]) -> str:
  """On what the last of several runs ran, when they did, and their commits."""
  starts = [start for x in results for start in x["environments"]]
  ran = starts[-1]
  commits = dict.fromkeys((x["commit"] or "unknown")[:7] for x in starts)
  days = sorted(x["date"][:10] for x in starts)
  return (
    f"the last on {ran['cpu'] or ran['devices'][0]} ({ran['cpu_count']} cores,"
    f" {', '.join(ran['devices'])}); {days[0]} to {days[-1]}, commit"
    f" {', '.join(commits)}"
  )


def escaped(text: str) -> str:
  """Text that Markdown, and HTML in it, show letter by letter, in one line.
  Names of classes are a user's, or a stranger's."""
  text = "".join(x if x.isprintable() else " " for x in str(text))
  text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
  # An underscore inside a word means nothing; "://" and "www." begin links.
  marks = r"[\\`*|~\[\]]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\."
  return re.sub(marks, r"\\\g<0>", text, flags=re.I)


def markdown(table: list[dict[str, str]]) -> str:
  """Rows of equal keys as a Markdown table, the first column to the left."""
  names = list(table[0])
  cells = [names, *(row.values() for row in table)]
  lines = [[escaped(x) for x in row] for row in cells]
  lines.insert(1, ["---", *["---:"] * (len(names) - 1)])
  return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def page(title: str, parts: list) -> str:
  """HTML that needs nothing else: parts are Headings, texts, tables (lists of
  rows of equal keys), PNG files, and tuples of PNG files, side by side."""
  kinds = {Heading: "heading", str: "text", list: "table", tuple: "row"}
  return _PAGE.render(
    title=title,
    parts=[(kinds.get(type(part), "picture"), part) for part in parts],
    encoded=_encoded,
  )


def markdown_page(title: str, parts: list, folder: pathlib.Path) -> str:
  """The same parts as Markdown, pictures as links relative to `folder`."""
  written = [f"# {escaped(title)}"]
  for part in parts:
    if isinstance(part, Heading):
      written.append(f"## {escaped(part)}")
    elif isinstance(part, str):
      written.append(escaped(part))
    elif isinstance(part, list):
      written.append(markdown(part))
    else:
      paths = part if isinstance(part, tuple) else (part,)
      for path in paths:
        link = urllib.parse.quote(str(path.relative_to(folder)))
        written.append(f"![{escaped(path.stem)}]({link})")
  return "\n\n".join(written) + "\n"


def _encoded(path: pathlib.Path) -> str:
  return base64.b64encode(path.read_bytes()).decode()
