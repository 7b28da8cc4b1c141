"""What a person sees of a run: a live bar on a terminal, plain lines in a log.

Only process 0 speaks.
"""

from collections.abc import Iterator
import contextlib
import sys
import time

from rich import console, live, markup, progress, table

PLAIN_EVERY = 5.0  # Seconds between lines where there is no terminal.
_console = console.Console(highlight=False, soft_wrap=True)
quiet = False  # Set on all processes but the first.


def say(text: str) -> None:
  """Prints lines, what a terminal would obey among them as spaces: names of
  classes are a user's, or a stranger's."""
  if not quiet:
    text = "".join(x if x.isprintable() or x == "\n" else " " for x in text)
    _console.print(text, markup=False)
    sys.stdout.flush()


def duration(seconds: float) -> str:
  """75 -> "1:15", 7384 -> "2:03:04"."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02}:{seconds:02}"
  return f"{minutes}:{seconds:02}"


class Bar:
  """Step, images a second, losses, time left. A context manager."""

  def __init__(self, first: int, total: int, batch_size: int):
    self._total, self._batch_size = total, batch_size
    self._last = (first, time.monotonic())
    self._spoke = 0.0
    self._aside = 0.0  # Seconds spent on other things than training.
    self._text = ""
    self.rate = 0.0  # Images a second since the update before,
    self.seconds = 0.0  # which was so long ago.
    self._bar = None
    if _console.is_terminal and not quiet:
      width = len(f"step {total}/{total}")
      self._bar = progress.Progress(
        progress.TextColumn(
          "step {task.completed}/{task.total}",
          table_column=table.Column(no_wrap=True, min_width=width),
        ),
        progress.BarColumn(bar_width=16),
        progress.TextColumn(  # What is cut off where the terminal is narrow.
          "{task.description}",
          markup=False,
          table_column=table.Column(no_wrap=True, ratio=1),
        ),
        console=_console,
        expand=True,
      )
      self._id = self._bar.add_task("", total=total, completed=first)

  def __enter__(self):
    if self._bar:
      self._bar.start()
    return self

  def __exit__(self, *_: object):
    if self._bar:
      self._bar.stop()

  def update(self, step: int, metrics: dict[str, float]) -> None:
    before, then = self._last
    now = time.monotonic() - self._aside
    self._last = (step, now)
    self.seconds = max(now - then, 1e-9)
    self.rate = (step - before) * self._batch_size / self.seconds
    left = (self._total - step) * self._batch_size / self.rate
    values = " ".join(f"{k} {v:.3f}" for k, v in metrics.items())
    self._text = f"{duration(left)} left  {self.rate:.0f} images/s  {values}"
    if self._bar:
      self._bar.update(self._id, completed=step, description=self._text)
    elif now - self._spoke >= PLAIN_EVERY or step == self._total:
      self._spoke = now
      say(f"step {step}/{self._total}  {self._text}")

  @contextlib.contextmanager
  def aside(self, text: str) -> Iterator[None]:
    """Says what is being done besides training; the rate leaves it out."""
    if self._bar:
      self._bar.update(self._id, description=f"{text}; {self._text}")
    start = time.monotonic()
    try:
      yield
    finally:
      self._aside += time.monotonic() - start


class Board:
  """Rows of texts, drawn anew in place on a terminal. In a log, the caption and
  then a line for each row that has changed in other columns than its last. A
  context manager."""

  def __init__(self, columns: tuple[str, ...]):
    self._columns = columns
    self._seen = None
    self._live = None
    if _console.is_terminal:
      self._live = live.Live(console=_console, auto_refresh=False)

  def __enter__(self):
    if self._live:
      self._live.start()
    return self

  def __exit__(self, *_: object):
    if self._live:
      self._live.stop()

  def show(self, caption: str, rows: list[tuple[str, ...]]) -> None:
    if self._live is None:
      if self._seen is None:
        say(caption)
      for row in rows:
        if self._seen and row[:-1] not in self._seen:
          say("  ".join(x for x in row if x))
      self._seen = {row[:-1] for row in rows}
      return
    drawn = table.Table(box=None, expand=True, caption=caption)
    *first, last = self._columns
    for name in first:
      drawn.add_column(name, no_wrap=True)
    drawn.add_column(last, no_wrap=True, ratio=1)
    for row in rows:
      drawn.add_row(*map(markup.escape, row))
    self._live.update(drawn, refresh=True)
