"""The append-only tables of bank statements: what a bank said is never changed and never deleted."""

from ledger import triggers

_INITIAL = ("statements", "0001_initial")
_LINE = [
    *("id", "account_id", "fingerprint", "ordinal", "side", "date", "booked_on", "kopecks", "credit_kopecks"),
    *("is_reversal", "number", "number_key", "digits_key", "inn", "not_creditable", "payer_inn"),
    *("payer_account", "payee_inn", "payee_account", "purpose", "kind", "uin", "raw"),
]
APPEND_ONLY_TABLES = {
    "statements_bankstatement": triggers.AppendOnlyTable(
        _INITIAL,
        fixed=["id", "sha256", "name", "encoding", "verdict", "unreadable", "created_at", "uploaded_at"],
    ),
    "statements_statementbalance": triggers.AppendOnlyTable(_INITIAL),
    "statements_statementline": triggers.AppendOnlyTable(_INITIAL, fixed=_LINE),
    "statements_linesighting": triggers.AppendOnlyTable(_INITIAL),
    "statements_actionitem": triggers.AppendOnlyTable(
        _INITIAL, fixed=["id", "action_id", "line_id", "webhook_id", "statement_id"]
    ),
}
