# The MySQL image reads this once, when it fills an empty volume: the user that web, worker and beat
# connect as. It may work with rows and nothing more. Without DROP and TRIGGER it can neither TRUNCATE
# the ledger nor take away the triggers that keep posted payments from being changed.
docker_process_sql <<SQL
CREATE USER 'prihod'@'%' IDENTIFIED BY '${MYSQL_APPLICATION_PASSWORD}';
GRANT SELECT, INSERT, UPDATE, DELETE ON prihod.* TO 'prihod'@'%';
SQL
