"""Prometheus metrics of the workers, and of the scheduler if it does their work.

Counters follow the commit: a process that dies in between has undercounted by one, never overcounted.
"""

from prometheus_client import Counter, Histogram

from core.observability import prometheus_multiprocess  # noqa: F401 first: it decides where counts are kept

APPLIED = Counter("prihod_webhooks_applied", "Webhooks applied")
ATTEMPTS = Counter("prihod_webhook_attempts", "Attempts begun, one for each webhook of a group")
FAILED = Counter(
    "prihod_webhooks_failed", "Webhooks failed after their last attempt, by class of error", ["kind"]
)
TRIAL_POSTING_FAILURES = Counter(
    "prihod_trial_posting_failures",
    "Failed batches and attempts that do not count, because a trial posting failed as well",
)
BATCH_SIZE = Histogram(
    "prihod_batch_size",
    "Webhooks in an applied batch",
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000),
)
BATCH_DURATION = Histogram(
    "prihod_batch_duration_seconds",
    "Time from claiming a batch to its commit, retried transactions included",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
