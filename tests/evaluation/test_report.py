"""Tables as people and browsers read them."""

import html.parser
import re

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt  # Which rich brings.
import numpy as np
import pytest

from jaxfake.evaluation import pictures, report
from jaxfake.runtime import progress


@pytest.mark.parametrize(
  ("n", "text"),
  [(None, "-"), (26, "26"), (9602, "9.6 k"), (25_557_032, "25.6 M")],
)
def test_counts_are_short(n, text):
  assert report.count(n) == text


def test_markdown_has_a_row_a_line_and_keeps_bars_apart():
  table = [{"name": "a|b", "x": "1"}, {"name": "c", "x": "2"}]
  lines = report.markdown(table).splitlines()
  assert lines[0] == "| name | x |"
  assert lines[1] == "| --- | ---: |"
  assert lines[2] == "| a\\|b | 1 |"
  assert len(lines) == 4


def test_a_page_needs_nothing_else_and_escapes_what_it_shows(tmp_path):
  picture = tmp_path / "plot.png"
  pictures.save(picture, np.zeros((4, 4), np.uint8))
  table = [{"name": "<script>alert(1)</script>", "x": "1"}]
  page = report.page("A & B", ["said < so", table, picture])
  assert "<script" not in page
  assert "A &amp; B" in page and "said &lt; so" in page
  assert 'src="data:image/png;base64,iVBOR' in page
  assert "http" not in page and "file:" not in page


# Names that a folder may have.
HOSTILE = (
  "a|b",
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "&lt;b&gt;",
  "[x](javascript:alert(1))",
  "![x](http://tracker.example/x.png)",
  "<http://tracker.example>",
  "https://tracker.example www.tracker.example",
  "`code` **bold** _it_ __b__ ~~gone~~ snake_case_name",
  "a\\|b\\",
  "two\nlines\r\n| --- |",
  "\u202egnp.txt\u2066",
  "'\"><svg onload=alert(1)>",
)


class Shown(html.parser.HTMLParser):
  """The texts of cells and paragraphs, and all tags."""

  def __init__(self, page):
    super().__init__()
    self.texts, self.tags = [], []
    self.feed(page)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    if tag in ("td", "th", "p", "h1", "h2"):
      self.texts.append("")

  def handle_data(self, data):
    if self.texts:
      self.texts[-1] += data


def rendered(text: str) -> Shown:
  kinds = MarkdownIt("commonmark").enable(["table", "strikethrough"])
  return Shown(kinds.render(text))


def plain(text: str) -> str:
  """A name with what cannot be printed as spaces, at most one of them."""
  kept = (x if x.isprintable() else " " for x in text)
  return re.sub(r"\s+", " ", "".join(kept)).strip()


NAMES = st.one_of(
  st.sampled_from(HOSTILE),
  st.text(alphabet="|<>&[]()!`*_~\\#:/w.\n\"'ab "),
  st.text(),
)


@given(NAMES, NAMES)
@example("<b>", "a\\")
def test_markdown_shows_every_name_as_it_is(one, two):
  table = [{"class": one, two + "!": "1"}, {"class": two, two + "!": "-"}]
  shown = rendered(report.markdown(table))
  assert set(shown.tags) <= {"table", "thead", "tbody", "tr", "th", "td"}
  texts = [plain(x) for x in shown.texts]
  want = [plain(x) for x in ("class", two + "!", one, "1", two, "-")]
  assert texts == want


@pytest.mark.parametrize("name", HOSTILE)
def test_pages_show_every_name_as_it_is(name, tmp_path):
  table = [{"class": name, f"recall of {name}": "1"}]
  parts = [report.Heading(f"Of {name}"), f"Text of {name}", table]
  text = report.markdown_page(f"Title of {name}", parts, tmp_path)
  page = report.page(f"Title of {name}", parts)
  for shown in (rendered(text), Shown(page)):
    assert not {"script", "img", "svg", "a", "b", "em", "del"} & set(shown.tags)
    seen = " ".join(map(plain, shown.texts))
    for start in ("Title of", "Of", "Text of", "recall of"):
      assert plain(f"{start} {name}") in plain(seen)
  assert "http://" not in text and "www.t" not in text  # Of GitHub's links.


@pytest.mark.parametrize("name", [*HOSTILE, "$x^{$", "$$", "\x1b[2Jx"])
def test_plots_draw_every_name(name, capsys):
  assert pictures.confusion(np.eye(2), (name, "b")).ndim == 3
  assert pictures.intervals({name: [(name, 1, 0, 2)]}, name).ndim == 3
  progress.say(f"class {name}")
  said = capsys.readouterr().out
  assert all(x.isprintable() for x in said.replace("\n", ""))
