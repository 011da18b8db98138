"""What workers, and the scheduler where it does their work, count for Prometheus.

A count follows the commit: who dies between the two has done one thing more than was counted, never one less.
"""

from prometheus_client import Counter, Histogram

from core.observability import prometheus_multiprocess  # noqa: F401 decides, before any is made, where counts are kept

APPLIED = Counter("prihod_webhooks_applied", "Webhooks that were applied")
ATTEMPTS = Counter("prihod_webhook_attempts", "Attempts that were begun, one for each webhook in them")
FAILED = Counter(
    "prihod_webhooks_failed", "Webhooks that were given up, by the kind of their error", ["kind"]
)
TRIAL_POSTING_FAILURES = Counter(
    "prihod_trial_posting_failures",
    "Batches and attempts that failed and do not count, as a trial posting failed, too",
)
BATCH_SIZE = Histogram(
    "prihod_batch_size",
    "Webhooks in a batch that was applied",
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000),
)
BATCH_DURATION = Histogram(
    "prihod_batch_duration_seconds",
    "From the look for a batch to its commit, transactions that ran again included",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
