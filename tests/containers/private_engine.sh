#!/bin/bash
# Run a command with a Docker engine of its own: for machines without an engine, or without access to an image registry.
#
#   tests/containers/private_engine.sh make compose-check
#
# Needs root on Debian 12, apt-get, an index for pip, and about 3 GB in CACHE (default /var/tmp/prihod-compose), which keeps
# the engine, the base images and the build's layers for the next run. The engine, its bridges, its iptables rules and the
# published ports are in a network namespace, and so is the command: the machine's own network stays as it is.
#
# The base images are made with debootstrap under the names that Dockerfile and docker-compose.yml use. They have the same
# software and entry points as far as Prihod uses them, but they are not the official images.
set -euo pipefail

CACHE=${CACHE:-/var/tmp/prihod-compose}
mkdir -p "$CACHE"
CACHE=$(realpath "$CACHE")
ENGINE=$CACHE/engine
BIN=$ENGINE/bin
export DEBIAN_FRONTEND=noninteractive

exec 9> "$CACHE/lock"
flock --nonblock 9 || { echo "Another process uses $CACHE." >&2; exit 1; }
RUN=$(mktemp -d "$CACHE/run.XXXX")
LOG=$RUN/log
MIRROR=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources)

say() { echo "private engine: $*" >&2; }
has_image() { docker image inspect "$1" > /dev/null 2>&1; }

# --- the engine: Debian unstable's packages, unpacked; only runc is Debian 12's ---

unstable() { APT_CONFIG=$CACHE/apt/apt.conf apt-get -qq "$@"; }

fetch_engine() {
    say "fetching Docker"
    apt-get -qq update
    apt-get -qq install --yes --no-install-recommends debootstrap iptables slirp4netns > /dev/null
    mkdir -p "$CACHE"/apt/{lists,cache/archives}/partial "$CACHE/packages" "$BIN" "$ENGINE/tree" "$ENGINE/config/cli-plugins"
    touch "$CACHE/apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR sid main" > "$CACHE/apt/sources.list"
    cat > "$CACHE/apt/apt.conf" <<CONF
Dir::State "$CACHE/apt";
Dir::State::lists "$CACHE/apt/lists";
Dir::State::status "$CACHE/apt/status";
Dir::Cache "$CACHE/apt/cache";
Dir::Etc::sourcelist "$CACHE/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "root";
CONF
    unstable update
    (
        cd "$CACHE/packages"
        unstable download docker.io docker-cli docker-compose docker-buildx containerd tini-static gosu
        apt-get -qq -o APT::Sandbox::User=root download runc libpython3.11-dev
        for package in *.deb; do
            case $package in gosu* | libpython*) ;; *) dpkg-deb -x "$package" "$ENGINE/tree" ;; esac
        done
    )
    local usr=$ENGINE/tree/usr
    ln -sf "$usr"/bin/{docker,containerd,containerd-shim-runc-v2} "$usr"/sbin/{dockerd,docker-proxy,runc} "$BIN"
    ln -sf "$usr/bin/tini-static" "$BIN/docker-init"
    ln -sf "$usr"/libexec/docker/cli-plugins/* "$ENGINE/config/cli-plugins"
    touch "$ENGINE/complete"
}

start_engine() {
    unshare --net --fork --kill-child sh -c "ip link set lo up; echo \$\$ > $RUN/namespace; exec sleep infinity" 9>&- &
    until [ -s "$RUN/namespace" ]; do sleep 0.1; done
    NAMESPACE=$(cat "$RUN/namespace")
    slirp4netns --configure --mtu=1400 --disable-host-loopback "$NAMESPACE" tap0 > "$RUN/slirp4netns.log" 2>&1 9>&- &
    SLIRP=$!
    inside dockerd --data-root "$ENGINE/data" --exec-root "$RUN/exec" --pidfile "$RUN/docker.pid" --host "$DOCKER_HOST" \
        --storage-driver overlay2 --dns 10.0.2.3 --config-file /dev/null > "$RUN/dockerd.log" 2>&1 9>&- &
    for _ in $(seq 120); do
        ! docker version > /dev/null 2>&1 || return 0
        sleep 0.5
    done
    tail -n 3 "$RUN/dockerd.log" >&2
    return 1
}

inside() { nsenter --net="/proc/$NAMESPACE/ns/net" "$@"; }

stop_engine() {  # and with it the processes of its containers; then the namespace
    local status=$?
    [ ! -s "$RUN/docker.pid" ] || kill "$(cat "$RUN/docker.pid")" 2> /dev/null || true
    for _ in $(seq 120); do
        [ -e "$RUN/docker.pid" ] || break
        sleep 0.5
    done
    kill "${SLIRP:-}" "${NAMESPACE:-}" 2> /dev/null || true
    wait 2> /dev/null || true
    say "logs are in $RUN"
    exit "$status"
}

# --- the base images ---

import_image() {  # TREE NAME OPTION…
    local tree=$1 name=$2
    shift 2
    rm -rf "$tree"/var/cache/apt/*.bin "$tree"/var/cache/apt/archives/*.deb
    tar -C "$tree" -c . | docker import "$@" - "$name" > /dev/null
    rm -rf "$tree"
}

make_python() {
    local tree=$RUN/python
    # debootstrap knows no virtual packages: distutils is named explicitly.
    debootstrap --variant=minbase --include=python3.11,python3.11-venv,python3-distutils,ca-certificates \
        bookworm "$tree" "$MIRROR" >> "$LOG" 2>&1
    # This machine's settings of apt-get and pip, which the build needs too.
    cp /etc/resolv.conf "$tree/etc/resolv.conf"
    : > "$tree/etc/apt/sources.list"
    cp /etc/apt/sources.list.d/debian.sources "$tree/etc/apt/sources.list.d/"
    cp /etc/apt/apt.conf.d/* "$tree/etc/apt/apt.conf.d/" 2> /dev/null || true
    cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/"
    printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > "$tree/etc/pip.conf"
    dpkg-deb --fsys-tarfile "$CACHE"/packages/libpython3.11-dev*.deb | tar -x -C "$tree" ./usr/include # Python.h
    ln -s python3.11 "$tree/usr/bin/python"
    import_image "$tree" python:3.11-slim-bookworm \
        --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' --change 'CMD ["python3"]'
}

make_redis() {
    docker build --quiet -t redis:7.4-bookworm - >> "$LOG" 2>&1 <<'FILE'
FROM python:3.11-slim-bookworm
RUN groupadd -r -g 999 redis && useradd -r -g redis -u 999 redis && apt-get update \
    && apt-get install -y --no-install-recommends redis-server gosu && rm -rf /var/lib/apt/lists/* \
    && mkdir /data && chown redis:redis /data
COPY --chmod=755 <<"ENTRYPOINT" /usr/local/bin/docker-entrypoint.sh
#!/bin/sh
set -e
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    find . ! -user redis -exec chown redis {} +
    exec gosu redis "$0" "$@"
fi
exec "$@"
ENTRYPOINT
VOLUME /data
WORKDIR /data
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
FILE
}

make_mysql() {
    local tree=$RUN/mysql
    debootstrap --variant=minbase --include=mysql-server-core,mysql-client-core sid "$tree" "$MIRROR" >> "$LOG" 2>&1
    dpkg-deb -x "$CACHE"/packages/gosu*.deb "$tree"
    chroot "$tree" sh -c 'groupadd -r -g 999 mysql; useradd -r -u 999 -g 999 -d /var/lib/mysql -M mysql
        mkdir -p /docker-entrypoint-initdb.d /var/lib/mysql /var/lib/mysql-files /var/run/mysqld
        chown mysql:mysql /var/lib/mysql /var/lib/mysql-files /var/run/mysqld; chmod 1777 /var/lib/mysql /var/run/mysqld'
    cat > "$tree/etc/my.cnf" <<'CNF'
[mysqld]
host-cache-size=0
skip-name-resolve
datadir=/var/lib/mysql
socket=/var/run/mysqld/mysqld.sock
secure-file-priv=/var/lib/mysql-files
pid-file=/var/run/mysqld/mysqld.pid
[client]
socket=/var/run/mysqld/mysqld.sock
CNF
    # What the official image's entry point does, as far as docker-compose.yml uses it.
    cat > "$tree/usr/local/bin/docker-entrypoint.sh" <<'ENTRYPOINT'
#!/bin/bash
set -eo pipefail
if [ "$(id -u)" = 0 ]; then
    find /var/lib/mysql ! -user mysql -exec chown mysql {} +
    exec gosu mysql "$BASH_SOURCE" "$@"
fi
[ "${1#-}" = "$1" ] || set -- mysqld "$@"
docker_process_sql() { mysql --user=root "${options[@]}" "$@"; }
if [ ! -d /var/lib/mysql/mysql ]; then # an interrupted initialization counts as complete, as it does there
    options=()
    "$@" --initialize-insecure
    "$@" --daemonize --skip-networking
    docker_process_sql <<SQL
ALTER USER 'root'@'localhost' IDENTIFIED BY '${MYSQL_ROOT_PASSWORD}';
CREATE USER 'root'@'%' IDENTIFIED BY '${MYSQL_ROOT_PASSWORD}';
GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;
CREATE DATABASE \`$MYSQL_DATABASE\`;
CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY '$MYSQL_PASSWORD';
GRANT ALL ON \`$MYSQL_DATABASE\`.* TO '$MYSQL_USER'@'%';
SQL
    options=(--password="$MYSQL_ROOT_PASSWORD" --database="$MYSQL_DATABASE")
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
            *.sql) docker_process_sql < "$file" ;;
        esac
    done
    mysqladmin --user=root --password="$MYSQL_ROOT_PASSWORD" shutdown
fi
exec "$@"
ENTRYPOINT
    chmod 755 "$tree/usr/local/bin/docker-entrypoint.sh"
    import_image "$tree" mysql:8.4 --change 'VOLUME /var/lib/mysql' \
        --change 'ENTRYPOINT ["docker-entrypoint.sh"]' --change 'CMD ["mysqld"]'
}

make_nginx() {
    local tree=$RUN/nginx
    debootstrap --variant=minbase --include=nginx-light sid "$tree" "$MIRROR" >> "$LOG" 2>&1
    # The official image's log files, temporary folders and user.
    chroot "$tree" sh -c 'ln -sf /dev/stdout /var/log/nginx/access.log; ln -sf /dev/stderr /var/log/nginx/error.log
        rm -rf /var/lib/nginx; ln -s /var/cache/nginx /var/lib/nginx; mkdir -p /var/cache/nginx'
    import_image "$tree" nginx:1.30 --change 'CMD ["nginx", "-g", "daemon off;"]'
}

make_image() { # NAME FUNCTION
    has_image "$1" || { say "making $1"; "$2"; }
}

[ -e "$ENGINE/complete" ] || fetch_engine
export PATH=$BIN:$PATH DOCKER_HOST=unix://$RUN/docker.sock DOCKER_CONFIG=$ENGINE/config
trap stop_engine EXIT
start_engine
say "Docker $(docker version --format '{{.Server.Version}}'), Compose $(docker compose version --short)"
make_image python:3.11-slim-bookworm make_python
make_image redis:7.4-bookworm make_redis
make_image mysql:8.4 make_mysql
make_image nginx:1.30 make_nginx
inside "$@"
