"""Django's MySQL and MariaDB backend with a connection check that needs no round trip."""
