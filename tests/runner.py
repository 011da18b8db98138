"""Run the same suite with `manage.py test` as with pytest."""

import argparse
from collections.abc import Sequence
from typing import Any

import pytest


class PytestRunner:
    """Django's test runner for `manage.py test [path ...] [-k expression] [--failfast]`."""

    def __init__(self, *, failfast: bool = False, expression: str | None = None, **_: Any) -> None:
        self._options = ["--exitfirst"] if failfast else []
        self._options += ["-k", expression] if expression else []

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--failfast", action="store_true", help="stop at the first failure")
        parser.add_argument("-k", dest="expression", help="only tests whose names match this expression")

    def run_tests(self, test_labels: Sequence[str], **_: Any) -> int:
        """Return the number of failures for Django's exit status: 0 if all tests passed."""
        return int(pytest.main([*self._options, *test_labels]) != pytest.ExitCode.OK)
