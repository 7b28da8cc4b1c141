"""Tables as people and browsers read them."""

import numpy as np
import pytest

from jaxfake import pictures, report


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
