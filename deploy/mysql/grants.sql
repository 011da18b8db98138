-- The privileges of web, worker and beat. Run as the server's root on the database prihod:
--
--     mysql --user=root prihod < deploy/mysql/grants.sql
--
-- before the first migration, and again before an update with new tables. A privilege on a table that does not exist
-- yet can only be granted together with CREATE, which is revoked below. If the user had privileges on all of prihod.*,
-- also run REVOKE SELECT, INSERT, UPDATE, DELETE ON prihod.* FROM 'prihod'@'%'.
--
-- After the migration, and after each run of this file, run column_grants.sql.

-- The ledger is append-only: no UPDATE and no DELETE, even without its triggers.
GRANT SELECT, INSERT, CREATE ON ledger_payment TO 'prihod'@'%';
GRANT SELECT, INSERT, CREATE ON ledger_replacement TO 'prihod'@'%';
GRANT SELECT, INSERT, CREATE ON ledger_balancelog TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON ledger_organization TO 'prihod'@'%';

-- The inbox. A webhook is never deleted; records of other deliveries expire.
GRANT SELECT, INSERT, UPDATE, CREATE ON ingest_webhook TO 'prihod'@'%';
GRANT SELECT, INSERT, DELETE, CREATE ON ingest_rejecteddelivery TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON ingest_duplicatedelivery TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON ingest_conflictingdelivery TO 'prihod'@'%';
GRANT SELECT, INSERT, DELETE, CREATE ON ingest_ignoreddelivery TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON ingest_unrecognizeddelivery TO 'prihod'@'%';
GRANT SELECT, INSERT, CREATE ON ingest_operationalias TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON ingest_operationversion TO 'prihod'@'%';
GRANT SELECT, INSERT, DELETE, CREATE ON ingest_ledgerverification TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON ingest_misconfiguration TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON ingest_suspectedduplicate TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON ingest_statementwebhook TO 'prihod'@'%';

-- Operator actions are append-only; the outcome of each item is written once. UPDATE on the first table is for locking
-- its rows (SELECT … FOR UPDATE requires it); a trigger refuses changes.
GRANT SELECT, INSERT, UPDATE, CREATE ON ingest_operatoraction TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON ingest_operatoractionitem TO 'prihod'@'%';

-- Bank statements: what a bank said is append-only, what became of it is not.
GRANT SELECT, INSERT, UPDATE, CREATE ON statements_ownaccount TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON statements_bankstatement TO 'prihod'@'%';
GRANT SELECT, INSERT, DELETE, CREATE ON statements_rejectedstatement TO 'prihod'@'%';
GRANT SELECT, INSERT, CREATE ON statements_statementbalance TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON statements_statementline TO 'prihod'@'%';
GRANT SELECT, INSERT, CREATE ON statements_linesighting TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON statements_matchkey TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON statements_match TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON statements_proposal TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON statements_decision TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON statements_actionitem TO 'prihod'@'%';
GRANT SELECT, INSERT, DELETE, CREATE ON statements_nightlyreconciliation TO 'prihod'@'%';
GRANT SELECT, INSERT, DELETE, CREATE ON statements_daytotal TO 'prihod'@'%';

-- Heartbeats, leases and the checkpoints of tasks.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON worker_heartbeat TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON monitoring_minutethroughput TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON worker_checkpoint TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON worker_lease TO 'prihod'@'%';

-- Open alerts, the lease of the alert check, and the throughput per minute.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON monitoring_alert TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON monitoring_alertlease TO 'prihod'@'%';

-- API keys. A key is revoked, never deleted.
GRANT SELECT, INSERT, UPDATE, CREATE ON api_apikey TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON api_failedreadcount TO 'prihod'@'%';

-- Task results, which Celery stores.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON django_celery_results_taskresult TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON django_celery_results_groupresult TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON django_celery_results_chordcounter TO 'prihod'@'%';

-- Users of the admin, and their history, which is append-only. Deleting a user deletes it too.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON auth_user TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON auth_user_groups TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON auth_user_user_permissions TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON auth_group TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON auth_group_permissions TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON django_session TO 'prihod'@'%';
GRANT SELECT, INSERT, DELETE, CREATE ON django_admin_log TO 'prihod'@'%';

-- Failed logins and second factors.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON axes_accessattempt TO 'prihod'@'%';
GRANT SELECT, DELETE, CREATE ON axes_accessattemptexpiration TO 'prihod'@'%';
GRANT SELECT, DELETE, CREATE ON axes_accessfailurelog TO 'prihod'@'%';
GRANT SELECT, DELETE, CREATE ON axes_accesslog TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON otp_totp_totpdevice TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON otp_static_staticdevice TO 'prihod'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON otp_static_statictoken TO 'prihod'@'%';

-- Written by migrations only.
GRANT SELECT, CREATE ON django_migrations TO 'prihod'@'%';
GRANT SELECT, CREATE ON django_content_type TO 'prihod'@'%';
GRANT SELECT, CREATE ON auth_permission TO 'prihod'@'%';

-- These processes create no tables.
REVOKE CREATE ON ledger_payment FROM 'prihod'@'%';
REVOKE CREATE ON ledger_replacement FROM 'prihod'@'%';
REVOKE CREATE ON ledger_balancelog FROM 'prihod'@'%';
REVOKE CREATE ON ledger_organization FROM 'prihod'@'%';
REVOKE CREATE ON ingest_webhook FROM 'prihod'@'%';
REVOKE CREATE ON ingest_rejecteddelivery FROM 'prihod'@'%';
REVOKE CREATE ON ingest_duplicatedelivery FROM 'prihod'@'%';
REVOKE CREATE ON ingest_conflictingdelivery FROM 'prihod'@'%';
REVOKE CREATE ON ingest_ignoreddelivery FROM 'prihod'@'%';
REVOKE CREATE ON ingest_unrecognizeddelivery FROM 'prihod'@'%';
REVOKE CREATE ON ingest_operationalias FROM 'prihod'@'%';
REVOKE CREATE ON ingest_operationversion FROM 'prihod'@'%';
REVOKE CREATE ON ingest_ledgerverification FROM 'prihod'@'%';
REVOKE CREATE ON ingest_misconfiguration FROM 'prihod'@'%';
REVOKE CREATE ON ingest_suspectedduplicate FROM 'prihod'@'%';
REVOKE CREATE ON ingest_statementwebhook FROM 'prihod'@'%';
REVOKE CREATE ON ingest_operatoraction FROM 'prihod'@'%';
REVOKE CREATE ON ingest_operatoractionitem FROM 'prihod'@'%';
REVOKE CREATE ON statements_ownaccount FROM 'prihod'@'%';
REVOKE CREATE ON statements_bankstatement FROM 'prihod'@'%';
REVOKE CREATE ON statements_rejectedstatement FROM 'prihod'@'%';
REVOKE CREATE ON statements_statementbalance FROM 'prihod'@'%';
REVOKE CREATE ON statements_statementline FROM 'prihod'@'%';
REVOKE CREATE ON statements_linesighting FROM 'prihod'@'%';
REVOKE CREATE ON statements_matchkey FROM 'prihod'@'%';
REVOKE CREATE ON statements_match FROM 'prihod'@'%';
REVOKE CREATE ON statements_proposal FROM 'prihod'@'%';
REVOKE CREATE ON statements_decision FROM 'prihod'@'%';
REVOKE CREATE ON statements_actionitem FROM 'prihod'@'%';
REVOKE CREATE ON statements_nightlyreconciliation FROM 'prihod'@'%';
REVOKE CREATE ON statements_daytotal FROM 'prihod'@'%';
REVOKE CREATE ON worker_heartbeat FROM 'prihod'@'%';
REVOKE CREATE ON monitoring_minutethroughput FROM 'prihod'@'%';
REVOKE CREATE ON worker_checkpoint FROM 'prihod'@'%';
REVOKE CREATE ON worker_lease FROM 'prihod'@'%';
REVOKE CREATE ON monitoring_alert FROM 'prihod'@'%';
REVOKE CREATE ON monitoring_alertlease FROM 'prihod'@'%';
REVOKE CREATE ON api_apikey FROM 'prihod'@'%';
REVOKE CREATE ON api_failedreadcount FROM 'prihod'@'%';
REVOKE CREATE ON django_celery_results_taskresult FROM 'prihod'@'%';
REVOKE CREATE ON django_celery_results_groupresult FROM 'prihod'@'%';
REVOKE CREATE ON django_celery_results_chordcounter FROM 'prihod'@'%';
REVOKE CREATE ON auth_user FROM 'prihod'@'%';
REVOKE CREATE ON auth_user_groups FROM 'prihod'@'%';
REVOKE CREATE ON auth_user_user_permissions FROM 'prihod'@'%';
REVOKE CREATE ON auth_group FROM 'prihod'@'%';
REVOKE CREATE ON auth_group_permissions FROM 'prihod'@'%';
REVOKE CREATE ON django_session FROM 'prihod'@'%';
REVOKE CREATE ON django_admin_log FROM 'prihod'@'%';
REVOKE CREATE ON axes_accessattempt FROM 'prihod'@'%';
REVOKE CREATE ON axes_accessattemptexpiration FROM 'prihod'@'%';
REVOKE CREATE ON axes_accessfailurelog FROM 'prihod'@'%';
REVOKE CREATE ON axes_accesslog FROM 'prihod'@'%';
REVOKE CREATE ON otp_totp_totpdevice FROM 'prihod'@'%';
REVOKE CREATE ON otp_static_staticdevice FROM 'prihod'@'%';
REVOKE CREATE ON otp_static_statictoken FROM 'prihod'@'%';
REVOKE CREATE ON django_migrations FROM 'prihod'@'%';
REVOKE CREATE ON django_content_type FROM 'prihod'@'%';
REVOKE CREATE ON auth_permission FROM 'prihod'@'%';
