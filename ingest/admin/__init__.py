"""The inbox in the admin; Django's autodiscovery registers the pages from here."""

from ingest.admin import operator_actions, pages, unrecognized

__all__ = ["operator_actions", "pages", "unrecognized"]
