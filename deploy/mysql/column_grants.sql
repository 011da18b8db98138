-- Which columns the application may change, where that is not all of them; for the server's root, on the database
-- prihod, after `migrate` and after each run of grants.sql:
--
--     mysql --user=root prihod < deploy/mysql/column_grants.sql
--
-- Apart from grants.sql, because a privilege on a column can't be granted before its table is there. What a bank said
-- and who an organization is then can't be rewritten by web, worker and beat. A new column that the application
-- changes is one more name here.

REVOKE UPDATE ON ledger_organization FROM 'prihod'@'%';
GRANT UPDATE (balance_kopecks, last_seq) ON ledger_organization TO 'prihod'@'%';

-- The body only for retention, which empties it.
REVOKE UPDATE ON ingest_webhook FROM 'prihod'@'%';
GRANT UPDATE (body, status, applied_at, next_attempt_at, attempts, last_error, error_fingerprint) ON ingest_webhook TO 'prihod'@'%';

REVOKE UPDATE ON ingest_conflictingdelivery FROM 'prihod'@'%';
GRANT UPDATE (resolved_by_id) ON ingest_conflictingdelivery TO 'prihod'@'%';

REVOKE UPDATE ON ingest_operatoractionitem FROM 'prihod'@'%';
GRANT UPDATE (outcome) ON ingest_operatoractionitem TO 'prihod'@'%';
