"""Where things are that tests need beside the package."""

import pathlib

TESTS = pathlib.Path(__file__).parent
ROOT = TESTS.parent
CONFIGS = ROOT / "configs"
