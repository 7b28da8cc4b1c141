"""The one rule from a score and two thresholds to a verdict."""

import numpy as np

VERDICTS = "real", "uncertain", "fake"


def verdicts(score: np.ndarray, uncertain: tuple[float, float]) -> list[str]:
  """Which of VERDICTS each score (n,) of a fake is: `real` up to the first of
  two thresholds, `fake` from the second, also where the two are one."""
  low, high = uncertain
  said = np.where(score >= high, 2, np.where(score <= low, 0, 1))
  return [VERDICTS[i] for i in said]
