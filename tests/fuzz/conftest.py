"""The acceptance tests' stack fixtures."""

from tests.acceptance.conftest import new_stack, servers, stack

__all__ = ["new_stack", "servers", "stack"]
