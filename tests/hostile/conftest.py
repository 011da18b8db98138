"""The houses of the acceptance tests, on the servers of the run."""

from tests.acceptance.conftest import house, new_house, servers

__all__ = ["house", "new_house", "servers"]
