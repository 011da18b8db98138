"""Seeded bugs, each with the scenario that must detect it: mutation testing of the checker."""

import re
from dataclasses import dataclass

from faults.all_scenarios import SCENARIOS
from faults.scenario_run import Result, run_scenario


@dataclass(frozen=True)
class SeededBug:
    """`name` is one of faults/seeded_bug_code.py's bugs or, with `sql`, a key dropped from the database."""

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


NO_MATCH_KEYS = (
    "ALTER TABLE statements_match ADD INDEX plain_line (line_id), ADD INDEX plain_webhook (webhook_id),"
    " DROP INDEX match_line_unique, DROP INDEX match_webhook_unique"
)
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
        "no_match_keys",
        "the database has no unique keys of live matches",
        "statements_posted",
        "guards: .* double line_id and live of statements_match",
        NO_MATCH_KEYS,
    ),
    SeededBug(
        "lines_posted_twice",
        "a line is posted again under another operation id",
        "statements_posted",
        "statements: .* are credited 2 times",
    ),
    SeededBug(
        "line_in_no_bucket",
        "a line that came in is in no bucket of the reconciliation",
        "statements_posted",
        "statements: the buckets have",
    ),
    SeededBug(
        "matched_with_tolerance",
        "a line matches a webhook of a kopeck more or less",
        "statements_posted",
        "statements: -?1 kopecks are unexplained",
    ),
    SeededBug(
        "lines_of_each_file",
        "a line that another file has, too, is stored again",
        "statements_posted",
        "statements: .* lines are stored, the files have",
    ),
    SeededBug(
        "stale_totals",
        "the totals of a day are kept when its lines change",
        "statements_posted",
        "statements: the totals of .* are not those of their lines",
    ),
    SeededBug(
        "unproven_lines_posted",
        "lines of an unproven statement are posted",
        "statements_posted",
        "statements: .* are credited 1 times instead of 0",
    ),
    SeededBug(
        "breaks_overlooked",
        "a day's closing balance that is not the next opening balance is not shown",
        "statements_posted",
        "statements: 0 breaks between balances are shown",
    ),
    SeededBug(
        "late_webhooks_posted",
        "a webhook whose payment was posted from a statement is posted, too",
        "statements_posted",
        "statements: .* are credited 2 times",
    ),
    SeededBug(
        "organization_updated_after_commit",
        "posting updates the organization's row, on which Galera's certification relies, after its commit",
        "galera_workers_on_all",
        "is after none of the entries|webhooks failed|batches were retried",
    ),
]
