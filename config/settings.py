"""Every setting, and the only place that reads the environment.

`.env.example` lists the variables with their units and defaults. A missing or malformed one
stops the process here, with a plain message, never later in a request.
"""

import warnings
from pathlib import Path
from zoneinfo import ZoneInfo

from django.core.exceptions import ImproperlyConfigured

from config import celery_settings, components
from config.env import (
    Environment,
    Secret,
    broker_from_url,
    database_from_url,
    dev_secret,
    email_address,
    email_from_url,
    read_auth,
    webhook_url,
)
from core import listen_address
from core.observability import logging, setup
from core.observability.prometheus_multiprocess import use_directory
from ingest import authentication, signatures
from web import security

BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment()
env.read_env(BASE_DIR / ".env")

# DEBUG=1, the default, allows development's stand-ins: SQLite, a file broker, a passing secret.
# With DEBUG=0 whatever is missing is an error.
DEBUG: bool = env.bool("DEBUG", default=True)
DATA_DIR = Path(env.str("DATA_DIR", default=".data")).resolve()


def required_in_production(name: str, stand_in: str) -> str:
    """The variable's value, or in development the stand-in; ImproperlyConfigured otherwise."""
    value: str = env.str(name, default="")
    if value or DEBUG:
        return Secret(value or stand_in)
    raise ImproperlyConfigured(f"{name} is not set; with DEBUG=0 it must be. See .env.example.")


SECRET_KEY_FILE = DATA_DIR / "secret_key"
SECRET_KEY = required_in_production("SECRET_KEY", stand_in=dev_secret(SECRET_KEY_FILE))
SECRET_KEY_FALLBACKS = [Secret(old) for old in env.listed("SECRET_KEY_FALLBACKS", str)]
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# Where the Procfile's web process listens, and how many run: config/gunicorn.py.
HOST: str = listen_address.host(env.str("HOST", default=listen_address.LOOPBACK))
PORT = env.whole("PORT")
URL = listen_address.url(HOST, PORT)  # for clients on this machine
WEB_PROCESSES = env.whole("WEB_PROCESSES")
WEB_THREADS = env.whole("WEB_THREADS")

# The bank's clock: a document_date without an offset is read in this zone.
BANK_TIME_ZONE: ZoneInfo = env.get_value("BANK_TIME_ZONE", cast=ZoneInfo, default=ZoneInfo("UTC"))

# Who may deliver, by door (ingest/authentication.py, docs/security.md).
WEBHOOK_AUTH = env.str("WEBHOOK_AUTH", default="")
TRUSTED_PROXIES = env.whole("TRUSTED_PROXIES")
BANK_AUTH = authentication.DeliveryAuth(
    secrets=env.listed("WEBHOOK_SECRETS", signatures.decode_secret),
    tolerance_seconds=env.whole("WEBHOOK_TOLERANCE_SECONDS"),
    x_signature_secrets=env.listed("WEBHOOK_X_SIGNATURE_SECRETS", authentication.parse_secret),
    public_keys=env.listed("WEBHOOK_PUBLIC_KEY_FILE", signatures.load_public_key),
    basic=env.listed("WEBHOOK_BASIC_AUTH", authentication.parse_basic_credentials),
    bearer=env.listed("WEBHOOK_BEARER_TOKENS", authentication.parse_secret),
    networks=env.listed("WEBHOOK_NETWORKS", authentication.parse_network),
)
TOCHKA_CUSTOMER_CODES: list[str] = env.listed("TOCHKA_CUSTOMER_CODES", str)
TOCHKA_AUTH = authentication.DeliveryAuth(
    public_keys=env.listed("TOCHKA_PUBLIC_KEY_FILE", signatures.load_public_key)
)
TBANK_AUTH = authentication.DeliveryAuth(
    basic=env.listed("TBANK_BASIC_AUTH", authentication.parse_basic_credentials),
    bearer=env.listed("TBANK_BEARER_TOKENS", authentication.parse_secret),
    networks=env.listed("TBANK_NETWORKS", authentication.parse_network),
)
authentication.check_tenant_restriction(TOCHKA_AUTH, TOCHKA_CUSTOMER_CODES, TBANK_AUTH)
ENDPOINT_AUTH = authentication.endpoint_auth(
    WEBHOOK_AUTH, debug=DEBUG, bank=BANK_AUTH, tochka=TOCHKA_AUTH, tbank=TBANK_AUTH
)

# Who may read: whoever shows a valid API key, or with "none" also whoever shows no key at all.
READ_AUTH: str = env.get_value("READ_AUTH", cast=read_auth, default="none" if DEBUG else "key")

# The inbox.
WORKER_PROCESSES = env.whole("WORKER_PROCESSES")  # for the Procfile, which can't check it
BATCH_SIZE_MAX = env.whole("BATCH_SIZE_MAX")
ATTEMPTS_MAX = env.whole("ATTEMPTS_MAX")
RETRY_BACKOFF_SECONDS = env.decimal("RETRY_BACKOFF_SECONDS")  # doubles with each attempt
SWEEP_INTERVAL_SECONDS = env.decimal("SWEEP_INTERVAL_SECONDS")
STALLED_AFTER_SECONDS = env.decimal("STALLED_AFTER_SECONDS")
DELIVERY_RECORDS_MAX = env.whole(
    "DELIVERY_RECORDS_MAX"
)  # of each source and kind: rejected, repeated, ignored
DELIVERY_RETENTION_DAYS = env.whole("DELIVERY_RETENTION_DAYS")  # 0 is for ever, as in the next two
RAW_BODY_RETENTION_DAYS = env.whole("RAW_BODY_RETENTION_DAYS")
TASK_RESULT_RETENTION_DAYS = env.whole("TASK_RESULT_RETENTION_DAYS")

# The nightly verification of the books (worker/nightly_verification.py).
VERIFY_AT_HOUR = env.whole("VERIFY_AT_HOUR")
VERIFY_ROWS_PER_SECOND_MAX = env.whole("VERIFY_ROWS_PER_SECOND_MAX")

# /metrics. Without the folder, each process tells only what it has counted itself.
METRICS_DIR: Path | None = env.get_value("PROMETHEUS_MULTIPROC_DIR", cast=use_directory, default=None)
METRICS_TOKEN: str = env.str("METRICS_TOKEN", default="")
METRICS_PORT = env.whole("METRICS_PORT")  # of workers and beat; 0: none

# Alerts: who is told (monitoring/notifications.py), and how often of the same cause.
ALERT_EMAILS: list[str] = env.listed("ALERT_EMAILS", email_address)
ALERT_WEBHOOK_URL: list[str] = env.listed("ALERT_WEBHOOK_URL", webhook_url)
ALERT_REPEAT_HOURS = env.decimal("ALERT_REPEAT_HOURS")
DEFAULT_FROM_EMAIL: str = env.str("ALERT_FROM", default="prihod@localhost")
globals().update(email_from_url(env.str("EMAIL_URL", default=""), needed=bool(ALERT_EMAILS)))

INSTALLED_APPS = [
    "backoffice.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "axes",
    "csp",
    "django_otp",
    "django_otp.plugins.otp_static",
    "django_otp.plugins.otp_totp",
    "django_celery_results",
    "drf_spectacular_sidecar",  # Swagger UI's static files
    "core",
    "api",
    "ledger",
    "ingest",
    "worker",
    "monitoring",
    "devtools",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "web.security.CspHeaderMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "web.host_check.HostCheckMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "backoffice.middleware.AdminAuthenticationMiddleware",
    "backoffice.middleware.AdminSecondFactorMiddleware",
    "backoffice.middleware.AdminMessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "backoffice.locale.AdminLocaleMiddleware",
    "axes.middleware.AxesMiddleware",
    "web.password_limit.PasswordRateLimitMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEST_RUNNER = "tests.runner.PytestRunner"

TEMPLATES = [components.PAGES]

# --- security: web/security.py has the values and the reasons ---------------------------------

globals().update(security.LOGIN)
CONTENT_SECURITY_POLICY = security.PAGE_POLICY
SECOND_FACTOR_REQUIRED: bool = env.bool("SECOND_FACTOR_REQUIRED", default=False)
if env.bool("BEHIND_TLS_PROXY", default=False):
    globals().update(security.behind_tls_proxy())

# --- the database ---------------------------------------------------------------------------------

DATABASE = database_from_url(
    required_in_production("DATABASE_URL", stand_in=""), stand_in=DATA_DIR / "prihod.sqlite3"
)
DATABASE |= {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True, "ATOMIC_REQUESTS": False}
DATABASES = {"default": DATABASE}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Celery: config/celery_settings.py has what no environment changes -----------------------------------

REDIS_URL = required_in_production("REDIS_URL", stand_in="")
globals().update(broker_from_url(REDIS_URL, stand_in=DATA_DIR / "broker"))  # CELERY_BROKER_…
globals().update(celery_settings.static_settings(SWEEP_INTERVAL_SECONDS))

# --- the rest -------------------------------------------------------------------------------------

LANGUAGE_CODE = "en"  # of programs' answers, logs and commands; the admin's viewers choose
LANGUAGES = [("en", "English"), ("ru", "Русский")]
LOCALE_PATHS = [BASE_DIR / "config/locale"]
LANGUAGE_COOKIE_AGE, LANGUAGE_COOKIE_PATH, LANGUAGE_COOKIE_SAMESITE = 365 * 24 * 3600, "/admin/", "Lax"
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = "config.formats"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
WHITENOISE_USE_FINDERS = True  # the admin's CSS, also where nobody ran collectstatic
LOG_LEVEL: str = env.get_value("LOG_LEVEL", cast=logging.parse_level, default="INFO")
LOGGING = logging.configure(level=LOG_LEVEL, as_json=not DEBUG)
SENTRY_DSN = Secret(env.str("SENTRY_DSN", default=""))
SENTRY_ENVIRONMENT: str = env.str("SENTRY_ENVIRONMENT", default="development" if DEBUG else "production")
OTEL_SERVICE_NAME: str = env.str("OTEL_SERVICE_NAME", default="prihod")
TRACING_ENABLED = bool(env.str("OTEL_EXPORTER_OTLP_ENDPOINT", default=""))
setup.configure(dsn=SENTRY_DSN, environment=SENTRY_ENVIRONMENT, traces=TRACING_ENABLED)
warnings.filterwarnings("ignore", "No directory at")  # of WhiteNoise; the finders are enough
if DEBUG:  # in production Celery is right to advise against root
    warnings.filterwarnings("ignore", "You're running the worker with superuser privileges")
