"""The ledger in the admin; Django's autodiscovery registers the pages from here."""

from ledger.admin import pages

__all__ = ["pages"]
