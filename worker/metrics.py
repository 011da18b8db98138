"""What workers, and the scheduler where it does their work, count for Prometheus.

A count follows the commit: who dies between the two has done one thing more than was counted, never one less.
"""

from prometheus_client import Counter, Histogram

from ingest import sharing  # noqa: F401 decides, before any is made, where counts are kept

APPLIED = Counter("prihod_applied", "Webhooks that were applied")
ATTEMPTS = Counter("prihod_attempts", "Attempts that were begun, one for each webhook in them")
FAILED = Counter("prihod_failed", "Webhooks that were given up, by the kind of their error", ["kind"])
POSTING_FAULTS = Counter(
    "prihod_posting_faults",
    "Batches and attempts that failed and do not count, as a trial posting failed, too",
)
BATCH_WEBHOOKS = Histogram(
    "prihod_batch_webhooks",
    "Webhooks in a batch that was applied",
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000),
)
BATCH_SECONDS = Histogram(
    "prihod_batch_seconds",
    "From the look for a batch to its commit, transactions that ran again included",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
