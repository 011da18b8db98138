-- Restrict UPDATE to the columns that the application changes. Run as the server's root on the database prihod, after
-- `migrate` and after each run of grants.sql:
--
--     mysql --user=root prihod < deploy/mysql/column_grants.sql
--
-- Separate from grants.sql, because a column privilege requires an existing table. Web, worker and beat can then change
-- neither the content of a delivery nor an organization's identity. Add new columns that the application changes here.

REVOKE UPDATE ON ledger_organization FROM 'prihod'@'%';
GRANT UPDATE (balance_kopecks, last_seq) ON ledger_organization TO 'prihod'@'%';

-- The body for retention only, which empties it.
REVOKE UPDATE ON ingest_webhook FROM 'prihod'@'%';
GRANT UPDATE (body, status, applied_at, next_attempt_at, attempts, last_error, error_fingerprint) ON ingest_webhook TO 'prihod'@'%';

REVOKE UPDATE ON ingest_conflictingdelivery FROM 'prihod'@'%';
GRANT UPDATE (resolved_by_id) ON ingest_conflictingdelivery TO 'prihod'@'%';

REVOKE UPDATE ON ingest_suspectedduplicate FROM 'prihod'@'%';
GRANT UPDATE (state, decided_by_id, is_shown_once) ON ingest_suspectedduplicate TO 'prihod'@'%';

REVOKE UPDATE ON ingest_operatoractionitem FROM 'prihod'@'%';
GRANT UPDATE (outcome) ON ingest_operatoractionitem TO 'prihod'@'%';

-- The outcome of a version's correction; the body for retention only.
REVOKE UPDATE ON ingest_operationversion FROM 'prihod'@'%';
GRANT UPDATE (body, outcome) ON ingest_operationversion TO 'prihod'@'%';
