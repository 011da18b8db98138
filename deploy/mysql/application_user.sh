# Create the user of web, worker and beat. The MySQL image runs this once, when it initializes an empty volume, and
# grants.sql with the user's privileges after it.
docker_process_sql <<SQL
CREATE USER 'prihod'@'%' IDENTIFIED BY '${MYSQL_APPLICATION_PASSWORD}';
SQL
