"""Seeded bugs, each with the scenario that must detect it: mutation testing of the checker."""

import re
from dataclasses import dataclass

from faults.all_scenarios import SCENARIOS
from faults.scenario_run import Result, run_scenario


@dataclass(frozen=True)
class SeededBug:
    """`name` is one of faults/failpoints.py's bugs or, with `sql`, a key dropped from the database."""

    name: str
    description: str
    scenario: str
    detected_by: str  # a pattern that the violation must match
    sql: str = ""

    def run(self, seed: int) -> tuple[Result, str]:
        """Return the result and the violation that detected the bug; empty if none did."""
        result = run_scenario(SCENARIOS[self.scenario], seed, bug=self.name, bug_sql=self.sql)
        found = (each for each in result.violations if re.search(self.detected_by, each))
        return result, next(found, "")


SEEDED_BUGS = [
    SeededBug(
        "no_organization_lock",
        "organizations are read without a lock before posting",
        "calm",
        "needed individual retries|were retried",
    ),
    SeededBug(
        "no_organization_lock_nor_seq_key",
        "… and the unique key of their entries is dropped too",
        "calm",
        "ledger: .* seq|entry .* does not follow",
        "ALTER TABLE ledger_balancelog ADD INDEX plain (organization_id, seq),"
        " DROP INDEX unique_seq_per_organization",
    ),
    SeededBug(
        "no_inbox_key",
        "the inbox has no unique key of operations",
        "duplicate_storm",
        "inbox: operation .* is stored .* times",
        "ALTER TABLE ingest_webhook DROP INDEX operation_id",
    ),
    SeededBug(
        "no_ledger_key",
        "the ledger has no unique key of operations",
        "calm",
        "guards: .* double operation_id of ledger_payment",
        "ALTER TABLE ledger_payment DROP INDEX operation_id",
    ),
    SeededBug(
        "acknowledge_before_commit",
        "the bank gets 200 before its webhook is committed",
        "web_child_killed",
        "acknowledged operation .* is lost",
    ),
    SeededBug(
        "batch_failure_acknowledged",
        "the bank gets 200 although its batch failed",
        "mariadb_restarted",
        "acknowledged operation .* is lost",
    ),
    SeededBug(
        "future_lost",
        "one delivery of twenty is stored and never answered",
        "refused_rows",
        "deliveries beside a refused row were not answered 200",
    ),
    SeededBug(
        "mark_in_own_transaction",
        "webhooks are marked applied in a transaction before the one that posts them",
        "failpoints_in_worker",
        "ledger: .* has operation .* 0 times",
    ),
    SeededBug(
        "sweeper_off",
        "the sweeper does not run, so lost rings are not repeated",
        "rings_lost",
        "still not: no webhook is left received",
    ),
    SeededBug(
        "doorbell_blocks",
        "the request sends the message to the broker itself",
        "redis_stopped",
        "during the fault",
    ),
    SeededBug(
        "retry_posts_again",
        "a retry posts committed webhooks again, and no unique key of the ledger stops it",
        "calm",
        "ledger: operation .* is posted 2 times",
        "ALTER TABLE ledger_payment DROP INDEX operation_id",
    ),
    SeededBug(
        "replacement_in_own_transaction",
        "a replacement is posted in a transaction after the one that reverses",
        "corrections_concurrent",
        "observer: a reversal was seen without its replacement",
    ),
    SeededBug(
        "item_done_before_correction",
        "the item of an operator action is marked as done in a transaction before the correction",
        "corrections_concurrent",
        "observer: a correction was seen without its operator action's item",
    ),
    SeededBug(
        "reversal_credited",
        "the entry of a reversal has the sign of a payment",
        "corrections_concurrent",
        "observer: balances, log entries and payments|ledger: .* with the amount",
    ),
    SeededBug(
        "replacement_gains_a_kopeck",
        "a replacement has a kopeck more than it should",
        "corrections_concurrent",
        "ledger: operation .* is posted with terms that no delivery has",
    ),
    SeededBug(
        "version_done_before_correction",
        "a version of an operation is marked as done in a transaction before its correction",
        "corrections_of_versions_killed",
        "observer: a correction was seen without|ledger: ",
    ),
    SeededBug(
        "no_reversal_keys",
        "the ledger has no unique key of reversals",
        "corrections_concurrent",
        "guards: .* double reverses_id of ledger_payment",
        "ALTER TABLE ledger_payment ADD INDEX plain (reverses_id), DROP INDEX reverses_id",
    ),
    SeededBug(
        "organization_updated_after_commit",
        "posting updates the organization's row, on which Galera's certification relies, after its commit",
        "galera_workers_on_all",
        "is after none of the entries|webhooks failed|batches were retried",
    ),
]
