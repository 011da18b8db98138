"""The inbox's admin pages. Admin autodiscovery imports this package, and it registers them."""

from ingest.admin import (
    deliveries,
    operator_actions,
    suspected_duplicates,
    suspense,
    unrecognized,
    verifications,
    versions,
    webhooks,
)

__all__ = [
    "deliveries",
    "operator_actions",
    "suspected_duplicates",
    "suspense",
    "unrecognized",
    "verifications",
    "versions",
    "webhooks",
]
