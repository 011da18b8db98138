# The MySQL image reads this once, when it fills an empty volume: the user that web, worker and beat
# connect as. What it may do is said in grants.sql, which the image reads next.
docker_process_sql <<SQL
CREATE USER 'prihod'@'%' IDENTIFIED BY '${MYSQL_APPLICATION_PASSWORD}';
SQL
