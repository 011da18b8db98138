"""The database's clock, under the name by which workers and monitoring know it."""

from ledger.clock import now

__all__ = ["now"]
