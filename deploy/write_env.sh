#!/bin/sh
# Write .env with random secrets for docker-compose.yml. Never overwrite an existing one, because the databases in the
# volumes have its passwords. Hexadecimal secrets need no quoting in a URL; the webhooks' secret has the format of
# Standard Webhooks.
#
# Make MySQL's initialization scripts readable for the user in its container, which they are not in a clone made with
# umask 077, and not executable: the image sources such a script, but would run an executable one in a shell of its own.
set -eu
chmod 644 "$(dirname "$0")"/mysql/*
umask 077
set -o noclobber

secret() {
    head -c 32 /dev/urandom | od -A n -t x1 | tr -d ' \n'
}

cat > .env <<ENV
SECRET_KEY=$(secret)
MYSQL_ROOT_PASSWORD=$(secret)
MYSQL_MIGRATION_PASSWORD=$(secret)
MYSQL_APPLICATION_PASSWORD=$(secret)
WEBHOOK_SECRETS=whsec_$(head -c 32 /dev/urandom | base64)
ENV
echo "Wrote .env with new secrets. Keep a copy of it in a safe place."
