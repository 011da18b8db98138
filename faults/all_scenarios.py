"""All scenarios by name: each module registers its own when it is imported."""

from faults import (
    broker_scenarios,
    cluster_scenarios,
    correction_scenarios,
    scenarios,
    statement_scenarios,
    version_scenarios,
)

MODULES = (
    *(scenarios, correction_scenarios, version_scenarios, statement_scenarios),
    *(cluster_scenarios, broker_scenarios),
)
SCENARIOS = scenarios.SCENARIOS
