"""Errors that a user can put right."""

from collections.abc import Iterable
import difflib

# The exit codes of every command.
FINISHED = 0
FAILED = 1  # A run, or what was asked of one of several files or runs.
MISTAKE = 2  # In the command, the configuration or the data.
PREEMPTED = 75  # After SIGTERM, where the same command goes on: EX_TEMPFAIL.
INTERRUPTED = 130  # After Ctrl-C: 128 + SIGINT.


class UserError(Exception):
  """A mistake of the user's: printed as one line, exit code 2."""


class ConfigError(UserError):
  """A config field has a value that cannot be used."""


class DataError(UserError):
  """A folder or file of the user's is not what it was said to be."""


class RunError(Exception):
  """A run that cannot go on: printed as one line, exit code 1."""


class DivergedError(RunError):
  """A loss became NaN or infinite."""


class SaveError(RunError):
  """A checkpoint could not be written."""


def check_choice(field: str, value: object, choices: Iterable) -> None:
  """Raises ConfigError, naming the field, unless value is one of choices."""
  if value not in choices:
    names = ", ".join(str(c) for c in choices)
    raise ConfigError(
      f"{field} is {value!r}: expected one of {names}{nearest(value, choices)}"
    )


def nearest(name: object, names: Iterable) -> str:
  """ "; did you mean X?", where one of the names is near enough."""
  texts = [str(x) for x in names]
  matches = difflib.get_close_matches(str(name), texts, n=1)
  return f"; did you mean {matches[0]}?" if matches and len(texts) > 1 else ""
