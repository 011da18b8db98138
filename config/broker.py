"""Celery's settings for the broker of REDIS_URL, which may be several servers.

redis://:password@h1:6379,h2:6379/0                        the first that responds
sentinel://:password@h1:26379,h2,h3/0?master_name=prihod   Redis's master, as the sentinels name it
amqp://user:password@h1:5672,h2,h3//                       RabbitMQ, the first that responds
"""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from django.core.exceptions import ImproperlyConfigured
from kombu.transport import TRANSPORT_ALIASES

from config.env import check_authority

CONNECT_SECONDS_MAX = 5  # to one server
CONNECT_SECONDS_MAX_IN_LIST = 2
AMQP_HEARTBEAT_SECONDS = 10


def broker_from_url(url: str, *, dev_default: Path) -> dict[str, Any]:
    """Return Celery's settings for the broker at `url`, or for files in the folder `dev_default`.

    Raise ImproperlyConfigured if the list is malformed, its kind of broker unknown, or a sentinel's master
    not named.
    """
    if not url:
        return _files(dev_default)
    check_authority("REDIS_URL", url)
    urls = [each for part in url.split(";") for each in _split_hosts(part)]
    for each in urls:
        _check(each)
    options: dict[str, Any] = {
        "socket_keepalive": True,
        "health_check_interval": 10,  # seconds
        # Against a broker that hangs; longer than the one second of kombu's own BRPOP.
        "socket_connect_timeout": CONNECT_SECONDS_MAX if len(urls) == 1 else CONNECT_SECONDS_MAX_IN_LIST,
        "socket_timeout": 30,
    }
    if url.startswith("sentinel:"):
        options["master_name"] = _master_name(url)
        urls = [urlunsplit(urlsplit(each)._replace(query="")) for each in urls]
    return {
        "CELERY_BROKER_URL": type(url)(";".join(urls)),  # whose repr hides the password
        "CELERY_BROKER_TRANSPORT_OPTIONS": options,
        "CELERY_BROKER_HEARTBEAT": AMQP_HEARTBEAT_SECONDS,  # Redis has none
    }


def _split_hosts(url: str) -> list[str]:
    """Return a URL for each of the comma-separated hosts of `url`."""
    parts = urlsplit(url)
    credentials, at, addresses = parts.netloc.rpartition("@")
    if "," not in addresses:
        return [url]
    if not all(addresses.split(",")):
        raise ImproperlyConfigured("REDIS_URL is malformed; see .env.example")
    return [
        urlunsplit(parts._replace(netloc=f"{credentials}{at}{address}")) for address in addresses.split(",")
    ]


def _check(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme.partition("+")[0] not in TRANSPORT_ALIASES:
        raise ImproperlyConfigured(
            "REDIS_URL begins with none of redis://, rediss://, sentinel:// and amqp://; see .env.example"
        )
    try:
        _ = parts.port
    except ValueError:
        raise ImproperlyConfigured("REDIS_URL is malformed: a port is no number; see .env.example") from None


def _master_name(url: str) -> str:
    names = parse_qs(urlsplit(url.partition(";")[0]).query).get("master_name")
    if not names:
        raise ImproperlyConfigured(
            "REDIS_URL names no master of its sentinels: sentinel://h1,h2/0?master_name=…; see .env.example"
        )
    return names[0]


def _files(folder: Path) -> dict[str, Any]:
    return {
        "CELERY_BROKER_URL": "filesystem://localhost",  # the host is unused; without one kombu warns
        "CELERY_BROKER_TRANSPORT": "worker.file_broker:Transport",
        # With this kind of transport Celery's prefork pool shares one pipe: a killed process would keep the
        # pipe's lock and block the others. SQLite allows only one writer anyway.
        "CELERY_WORKER_POOL": "solo",
        "CELERY_BROKER_TRANSPORT_OPTIONS": {
            "data_folder_in": str(folder / "messages"),
            "control_folder": str(folder / "control"),
            "polling_interval": 0.05,  # seconds
        },
    }
