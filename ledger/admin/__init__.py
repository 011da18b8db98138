"""The admin of the ledger. Django's autodiscovery imports this package."""

from ledger.admin import pages  # noqa: F401 registers the admin classes
