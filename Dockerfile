# One image for web, worker, beat and migrate; docker-compose.yml has the command of each.

# mysqlclient has no wheel: its compiler and headers stay in this stage.
FROM python:3.11-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev pkg-config default-libmysqlclient-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
RUN python -m venv /opt/venv
COPY requirements/base.txt requirements/mysql.txt requirements/observing.txt requirements/
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check \
    -r requirements/base.txt -r requirements/mysql.txt -r requirements/observing.txt

FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libmariadb3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 prihod \
    && useradd --uid 10001 --gid prihod --no-create-home --no-log-init --shell /usr/sbin/nologin prihod
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
# The files that .dockerignore includes, owned by root: the processes can read their code, but not change it.
COPY . .
# Also from a clone that only its owner can read (umask 077).
RUN chmod -R a+rX .
# Development settings suffice for this; their random secret disappears with the process.
RUN python manage.py collectstatic --no-input --ignore redoc --ignore '*.map'
USER 10001:10001
