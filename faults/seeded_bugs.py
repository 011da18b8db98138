"""Bugs planted on purpose, each with the scenario that must turn red on it, and the words that say why."""

import re
from dataclasses import dataclass

from faults.scenario_run import Result, run_scenario
from faults.scenarios import SCENARIOS


@dataclass(frozen=True)
class SeededBug:
    """`name` is one of faults/failpoints.py's or, with `sql`, a key taken out of the database."""

    name: str
    sentence: str
    scenario: str
    seen_by: str  # a pattern for what the checker has to say
    sql: str = ""

    def play(self, seed: int) -> tuple[Result, str]:
        """The result, and the sentence with which the checker named this bug; empty if it did not."""
        result = run_scenario(SCENARIOS[self.scenario], seed, plant=self.name, plant_sql=self.sql)
        return result, next((told for told in result.broken if re.search(self.seen_by, told)), "")


SEEDED_BUGS = [
    SeededBug(
        "no_organization_lock",
        "organizations are read without a lock before posting",
        "calm",
        "needed attempts of their own|had to be tried again",
    ),
    SeededBug(
        "no_organization_lock_nor_seq_key",
        "… and the unique key of their log lines is gone, too",
        "calm",
        "ledger: .* seq|line .* does not follow",
        "ALTER TABLE ledger_balancelog ADD INDEX plain (organization_id, seq), DROP INDEX unique_seq_per_organization",
    ),
    SeededBug(
        "no_inbox_key",
        "the inbox has no unique key of operations",
        "duplicate_storm",
        "inbox: operation .* is there .* times",
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
        "the bank hears 200 before its webhook is committed",
        "web_child_killed",
        "acknowledged operation .* is lost",
    ),
    SeededBug(
        "mark_apart",
        "webhooks are marked applied in a transaction before the one that posts them",
        "fault_points_in_the_worker",
        "ledger: .* has operation .* 0 times",
    ),
    SeededBug(
        "sweeper_off",
        "nobody looks for what was not rung for",
        "rings_lost",
        "still not: nothing is left received",
    ),
    SeededBug(
        "doorbell_blocks",
        "the request itself sends the message to the broker",
        "redis_stopped",
        "in the bad time",
    ),
    SeededBug(
        "retry_posts_again",
        "a retry posts again what was committed, and no unique key of the ledger stops it",
        "calm",
        "ledger: operation .* is posted 2 times",
        "ALTER TABLE ledger_payment DROP INDEX operation_id",
    ),
]
