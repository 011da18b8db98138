"""All settings, and the only place that reads the environment.

`.env.example` lists the variables with their units and defaults. A missing or malformed one stops the
process at startup with a one-line message.
"""

import gc
import warnings
from pathlib import Path
from zoneinfo import ZoneInfo

from django.core.exceptions import ImproperlyConfigured

from config import broker, celery_settings, components
from config import env as environment
from core import delivery_auth, listen_address
from core.delivery_auth import DeliveryAuth
from core.observability import logging as log_setup
from core.observability import setup as observability
from core.observability.prometheus_multiprocess import use_directory

# core.apps enables it again. Loading makes many objects and little garbage; a fifth of its time
# was the search for it.
gc.disable()

BASE_DIR = Path(__file__).resolve().parent.parent
env = environment.Environment()
env.read_env(BASE_DIR / ".env")

# DEBUG=1, the default, enables the development defaults: SQLite, a file broker, a local secret.
# With DEBUG=0 a missing variable is an error.
DEBUG: bool = env.bool("DEBUG", default=True)
DATA_DIR = Path(env.str("DATA_DIR", default=".data")).resolve()


def required_in_production(name: str, dev_default: str) -> str:
    """Return the variable, or `dev_default` in development. Raise ImproperlyConfigured in production."""
    value: str = env.str(name, default="")
    if value or DEBUG:
        return environment.Secret(value or dev_default)
    raise ImproperlyConfigured(f"{name} is not set; with DEBUG=0 it must be. See .env.example.")


SECRET_KEY_FILE = DATA_DIR / "secret_key"
SECRET_KEY = required_in_production("SECRET_KEY", dev_default=environment.dev_secret(SECRET_KEY_FILE))
SECRET_KEY_FALLBACKS = [environment.Secret(old) for old in env.list_of("SECRET_KEY_FALLBACKS", str)]
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# The address and size of the web server, which config/gunicorn.py reads as well.
HOST: str = listen_address.host(env.str("HOST", default=listen_address.LOOPBACK))
PORT = env.integer("PORT")
URL = listen_address.url(HOST, PORT)  # for clients on this machine
WEB_PROCESSES = env.integer("WEB_PROCESSES")
WEB_THREADS = env.integer("WEB_THREADS")

# The time zone of a document_date without an offset.
BANK_TIME_ZONE: ZoneInfo = env.get_value("BANK_TIME_ZONE", cast=ZoneInfo, default=ZoneInfo("UTC"))

# Bank statements: the time zone of their days, and when a payment may be posted from one.
STATEMENT_TIME_ZONE: ZoneInfo = env.get_value(
    "STATEMENT_TIME_ZONE", cast=ZoneInfo, default=ZoneInfo("Europe/Moscow")
)
STATEMENT_ALERT_AFTER_DAYS = env.integer("STATEMENT_ALERT_AFTER_DAYS")
STATEMENT_POST_AFTER_HOURS = env.integer("STATEMENT_POST_AFTER_HOURS")  # after the day's end

# Authentication of deliveries, by endpoint (ingest/authentication.py, docs/security.md).
WEBHOOK_AUTH = env.str("WEBHOOK_AUTH", default="")
TRUSTED_PROXIES = env.integer("TRUSTED_PROXIES")
BANK_AUTH = DeliveryAuth(
    secrets=env.list_of("WEBHOOK_SECRETS", delivery_auth.decode_secret),
    tolerance_seconds=env.integer("WEBHOOK_TOLERANCE_SECONDS"),
    x_signature_secrets=env.list_of("WEBHOOK_X_SIGNATURE_SECRETS", delivery_auth.parse_secret),
    public_keys=env.list_of("WEBHOOK_PUBLIC_KEY_FILE", delivery_auth.load_public_key),
    basic=env.list_of("WEBHOOK_BASIC_AUTH", delivery_auth.parse_basic_credentials),
    bearer=env.list_of("WEBHOOK_BEARER_TOKENS", delivery_auth.parse_secret),
    networks=env.list_of("WEBHOOK_NETWORKS", delivery_auth.parse_network),
)
TOCHKA_CUSTOMER_CODES: list[str] = env.list_of("TOCHKA_CUSTOMER_CODES", str)
TOCHKA_AUTH = DeliveryAuth(public_keys=env.list_of("TOCHKA_PUBLIC_KEY_FILE", delivery_auth.load_public_key))
TBANK_AUTH = DeliveryAuth(
    basic=env.list_of("TBANK_BASIC_AUTH", delivery_auth.parse_basic_credentials),
    bearer=env.list_of("TBANK_BEARER_TOKENS", delivery_auth.parse_secret),
    networks=env.list_of("TBANK_NETWORKS", delivery_auth.parse_network),
)
ENDPOINT_AUTH = delivery_auth.endpoint_auth(
    WEBHOOK_AUTH, debug=DEBUG, bank=BANK_AUTH, tochka=TOCHKA_AUTH, tbank=TBANK_AUTH
)

# Deliveries of one web process that wait for their commit (ingest/group_commit.py); more are answered 503.
WAITING_DELIVERIES_MAX = env.integer("WAITING_DELIVERIES_MAX")
WAITING_BYTES_MAX = env.integer("WAITING_BYTES_MAX")  # of their bodies

# Read access: "key" requires an API key, "none" also serves requests without one.
READ_AUTH: str = env.get_value("READ_AUTH", cast=environment.read_auth, default="none" if DEBUG else "key")

# The inbox.
WORKER_PROCESSES = env.integer("WORKER_PROCESSES")  # used by the Procfile, which can't validate it
BATCH_SIZE_MAX = env.integer("BATCH_SIZE_MAX")
ATTEMPTS_MAX = env.integer("ATTEMPTS_MAX")
RETRY_BACKOFF_SECONDS = env.number("RETRY_BACKOFF_SECONDS")  # doubles with each attempt
SWEEP_INTERVAL_SECONDS = env.number("SWEEP_INTERVAL_SECONDS")
STALLED_AFTER_SECONDS = env.number("STALLED_AFTER_SECONDS")
SUSPENSE_ALERT_AFTER_DAYS = env.number("SUSPENSE_ALERT_AFTER_DAYS")
# mark: post and show them; hold: post after an operator's approval; off
SUSPECTED_DUPLICATES: str = env.get_value(
    "SUSPECTED_DUPLICATES", cast=environment.suspected_duplicates, default="mark"
)
DELIVERY_RECORDS_MAX = env.integer("DELIVERY_RECORDS_MAX")  # per endpoint: rejected, duplicate, ignored each
DELIVERY_RETENTION_DAYS = env.integer("DELIVERY_RETENTION_DAYS")  # 0 is forever, as for the next two
RAW_BODY_RETENTION_DAYS = env.integer("RAW_BODY_RETENTION_DAYS")
TASK_RESULT_RETENTION_DAYS = env.integer("TASK_RESULT_RETENTION_DAYS")

# The nightly verification of the ledger (worker/nightly_verification.py).
VERIFY_AT_HOUR = env.integer("VERIFY_AT_HOUR")
VERIFY_ROWS_PER_SECOND_MAX = env.integer("VERIFY_ROWS_PER_SECOND_MAX")

# /metrics. Without the directory each process reports only its own counts.
METRICS_DIR: Path | None = env.get_value("PROMETHEUS_MULTIPROC_DIR", cast=use_directory, default=None)
METRICS_TOKEN: str = env.str("METRICS_TOKEN", default="")
METRICS_PORT = env.integer("METRICS_PORT")  # of workers and beat; 0: none

# Alerts: the receivers (monitoring/notifications.py), and the interval of reminders.
ALERT_EMAILS: list[str] = env.list_of("ALERT_EMAILS", environment.email_address)
ALERT_WEBHOOK_URL: list[str] = env.list_of("ALERT_WEBHOOK_URL", environment.webhook_url)
ALERT_REPEAT_HOURS = env.number("ALERT_REPEAT_HOURS")
DEFAULT_FROM_EMAIL: str = env.str("ALERT_FROM", default="prihod@localhost")
globals().update(environment.email_from_url(env.str("EMAIL_URL", default=""), required=bool(ALERT_EMAILS)))

INSTALLED_APPS = components.INSTALLED_APPS
MIDDLEWARE = components.MIDDLEWARE
TEMPLATES = components.TEMPLATES
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEST_RUNNER = "tests.runner.PytestRunner"

# --- security: config/components.py has the values and the reasons -------------------------------

globals().update(components.LOGIN)
CONTENT_SECURITY_POLICY = components.CONTENT_SECURITY_POLICY
SECOND_FACTOR_REQUIRED: bool = env.bool("SECOND_FACTOR_REQUIRED", default=False)
if env.bool("BEHIND_TLS_PROXY", default=False):
    globals().update(components.behind_tls_proxy())

# --- the database ---------------------------------------------------------------------------------

DATABASE = environment.database_from_url(
    required_in_production("DATABASE_URL", dev_default=""), dev_default=DATA_DIR / "prihod.sqlite3"
)
KEPT_OPEN = {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True, "ATOMIC_REQUESTS": False}
DATABASES = {"default": DATABASE | KEPT_OPEN}
READ_DATABASE = "default"  # of the read API: its data, not its keys
if READ_DATABASE_URL := environment.Secret(env.str("READ_DATABASE_URL", default="")):
    READ_DATABASE = "read"
    DATABASES[READ_DATABASE] = environment.reads_from_url(READ_DATABASE_URL) | KEPT_OPEN
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Celery: config/celery_settings.py has what no environment variable changes -------------------

REDIS_URL = required_in_production("REDIS_URL", dev_default="")
globals().update(broker.broker_from_url(REDIS_URL, dev_default=DATA_DIR / "broker"))  # CELERY_BROKER_…
globals().update(celery_settings.static_settings(SWEEP_INTERVAL_SECONDS))

# --- the rest -------------------------------------------------------------------------------------

LANGUAGE_CODE = "en"  # of API responses, logs and commands; each viewer of the admin chooses one
LANGUAGES = [("en", "English"), ("ru", "Русский")]
LOCALE_PATHS = [BASE_DIR / "config/locale"]
LANGUAGE_COOKIE_AGE, LANGUAGE_COOKIE_PATH, LANGUAGE_COOKIE_SAMESITE = 365 * 24 * 3600, "/admin/", "Lax"
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = "config.formats"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
WHITENOISE_USE_FINDERS = True  # serves static files without collectstatic as well
LOG_LEVEL: str = env.get_value("LOG_LEVEL", cast=log_setup.parse_level, default="INFO")
LOGGING = log_setup.configure(level=LOG_LEVEL, as_json=not DEBUG)
SENTRY_DSN = environment.Secret(env.str("SENTRY_DSN", default=""))
SENTRY_ENVIRONMENT: str = env.str("SENTRY_ENVIRONMENT", default="development" if DEBUG else "production")
OTEL_SERVICE_NAME: str = env.str("OTEL_SERVICE_NAME", default="prihod")
TRACING_ENABLED = bool(env.str("OTEL_EXPORTER_OTLP_ENDPOINT", default=""))
observability.configure(dsn=SENTRY_DSN, environment=SENTRY_ENVIRONMENT, traces=TRACING_ENABLED)
warnings.filterwarnings("ignore", "No directory at")  # WhiteNoise's warning about STATIC_ROOT
if DEBUG:  # in production Celery's advice against root is right
    warnings.filterwarnings("ignore", "You're running the worker with superuser privileges")
