"""Django's backend for MySQL and MariaDB, which knows without a message whether a connection lives."""
