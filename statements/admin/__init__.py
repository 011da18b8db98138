"""The admin of bank statements. Django's autodiscovery imports this package."""

from statements.admin import (  # noqa: F401 registers the admin classes
    action_items,
    bank_statements,
    own_accounts,
    rejected_statements,
    statement_lines,
)
