"""The houses of the acceptance tests, on the servers of the run."""

from tests.acceptance.conftest import new_stack, servers, stack

__all__ = ["new_stack", "servers", "stack"]
