"""`manage.py test` runs the same suite as pytest."""

import argparse
from collections.abc import Sequence
from typing import Any

import pytest


class PytestRunner:
    """What Django calls for `manage.py test [path ...] [-k expression] [--failfast]`."""

    def __init__(self, *, failfast: bool = False, expression: str | None = None, **_: Any) -> None:
        self._options = ["--exitfirst"] if failfast else []
        self._options += ["-k", expression] if expression else []

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--failfast", action="store_true", help="stop at the first failure")
        parser.add_argument("-k", dest="expression", help="only tests whose names match this expression")

    def run_tests(self, test_labels: Sequence[str], **_: Any) -> int:
        """The number Django turns into an exit code: 0 when all passed."""
        return int(pytest.main([*self._options, *test_labels]) != pytest.ExitCode.OK)
