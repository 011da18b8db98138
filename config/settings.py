"""Every setting, and the only place that reads the environment.

`.env.example` lists the variables with their units and defaults. A missing or malformed one
stops the process here, with a plain message, never later in a request.
"""

import warnings
from pathlib import Path
from zoneinfo import ZoneInfo

from django.core.exceptions import ImproperlyConfigured

from config import environment, listening, logs, observing, queueing, security, templating
from ingest import doorkeeper, signing
from ingest.sharing import share_counts_in

BASE_DIR = Path(__file__).resolve().parent.parent
env = environment.Environment()
env.read_env(BASE_DIR / ".env")

# DEBUG=1, the default, allows development's stand-ins: SQLite, a file broker, a passing secret.
# With DEBUG=0 whatever is missing is an error.
DEBUG: bool = env.bool("DEBUG", default=True)
DATA_DIR = Path(env.str("DATA_DIR", default=".data")).resolve()


def needed_in_production(name: str, stand_in: str) -> str:
    """The variable's value, or in development the stand-in; ImproperlyConfigured otherwise."""
    value: str = env.str(name, default="")
    if value or DEBUG:
        return environment.Secret(value or stand_in)
    raise ImproperlyConfigured(f"{name} is not set; with DEBUG=0 it must be. See .env.example.")


SECRET_KEY_FILE = DATA_DIR / "secret_key"
SECRET_KEY = needed_in_production("SECRET_KEY", stand_in=environment.kept_secret(SECRET_KEY_FILE))
SECRET_KEY_FALLBACKS = [environment.Secret(old) for old in env.listed("SECRET_KEY_FALLBACKS", str)]
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# Where the Procfile's web process listens, and how many run: config/web_server.py.
HOST: str = listening.host(env.str("HOST", default=listening.LOOPBACK))
PORT = env.whole("PORT")
URL = listening.url(HOST, PORT)  # for clients on this machine
WEB_PROCESSES = env.whole("WEB_PROCESSES")
WEB_THREADS = env.whole("WEB_THREADS")

# The bank's clock: a document_date without an offset is read in this zone.
BANK_TIME_ZONE: ZoneInfo = env.get_value("BANK_TIME_ZONE", cast=ZoneInfo, default=ZoneInfo("UTC"))

# Who may deliver, by door (ingest/doorkeeper.py, docs/security.md).
WEBHOOK_AUTH = env.str("WEBHOOK_AUTH", default="")
TRUSTED_PROXIES = env.whole("TRUSTED_PROXIES")
AT_THE_BANKS = doorkeeper.Guard(
    secrets=env.listed("WEBHOOK_SECRETS", signing.key_of),
    tolerance_seconds=env.whole("WEBHOOK_TOLERANCE_SECONDS"),
    x_signature_secrets=env.listed("WEBHOOK_X_SIGNATURE_SECRETS", doorkeeper.long_secret),
    public_keys=env.listed("WEBHOOK_PUBLIC_KEY_FILE", signing.public_key_in),
    basic=env.listed("WEBHOOK_BASIC_AUTH", doorkeeper.basic_credentials),
    bearer=env.listed("WEBHOOK_BEARER_TOKENS", doorkeeper.long_secret),
    networks=env.listed("WEBHOOK_NETWORKS", doorkeeper.network),
)
TOCHKA_CUSTOMER_CODES: list[str] = env.listed("TOCHKA_CUSTOMER_CODES", str)
AT_TOCHKAS = doorkeeper.Guard(public_keys=env.listed("TOCHKA_PUBLIC_KEY_FILE", signing.public_key_in))
AT_TBANKS = doorkeeper.Guard(
    basic=env.listed("TBANK_BASIC_AUTH", doorkeeper.basic_credentials),
    bearer=env.listed("TBANK_BEARER_TOKENS", doorkeeper.long_secret),
    networks=env.listed("TBANK_NETWORKS", doorkeeper.network),
)
doorkeeper.check_meant_for_us(AT_TOCHKAS, TOCHKA_CUSTOMER_CODES, AT_TBANKS)
WEBHOOK_GUARDS = doorkeeper.guards(
    WEBHOOK_AUTH, debug=DEBUG, bank=AT_THE_BANKS, tochka=AT_TOCHKAS, tbank=AT_TBANKS
)

# Who may read: whoever shows a valid API key, or with "none" also whoever shows no key at all.
READ_AUTH: str = env.get_value("READ_AUTH", cast=environment.read_auth, default="none" if DEBUG else "key")

# The inbox.
WORKER_PROCESSES = env.whole("WORKER_PROCESSES")  # for the Procfile, which can't check it
BATCH_WEBHOOKS_MAX = env.whole("BATCH_WEBHOOKS_MAX")
ATTEMPTS_MAX = env.whole("ATTEMPTS_MAX")
ATTEMPT_DELAY_SECONDS = env.decimal("ATTEMPT_DELAY_SECONDS")  # doubles with each attempt
SWEEP_EVERY_SECONDS = env.decimal("SWEEP_EVERY_SECONDS")
STALLED_AFTER_SECONDS = env.decimal("STALLED_AFTER_SECONDS")
KEPT_DELIVERIES_MAX = env.whole("KEPT_DELIVERIES_MAX")  # of each source and kind: rejected, repeated, ignored
KEPT_DELIVERIES_DAYS = env.whole("KEPT_DELIVERIES_DAYS")  # 0 is for ever, as in the next two
BODIES_KEPT_DAYS = env.whole("BODIES_KEPT_DAYS")
RESULTS_KEPT_DAYS = env.whole("RESULTS_KEPT_DAYS")

# The nightly verification of the books (worker/verifying.py).
VERIFY_AT_HOUR = env.whole("VERIFY_AT_HOUR")
VERIFY_ROWS_PER_SECOND_MAX = env.whole("VERIFY_ROWS_PER_SECOND_MAX")

# /metrics. Without the folder, each process tells only what it has counted itself.
METRICS_DIR: Path | None = env.get_value("PROMETHEUS_MULTIPROC_DIR", cast=share_counts_in, default=None)
METRICS_TOKEN: str = env.str("METRICS_TOKEN", default="")
METRICS_PORT = env.whole("METRICS_PORT")  # of workers and beat; 0: none

# Alerts: who is told (monitoring/telling.py), and how often of the same cause.
ALERT_EMAILS: list[str] = env.listed("ALERT_EMAILS", environment.email_address)
ALERT_WEBHOOK_URL: list[str] = env.listed("ALERT_WEBHOOK_URL", environment.url_to_post_to)
ALERT_REPEAT_HOURS = env.decimal("ALERT_REPEAT_HOURS")
DEFAULT_FROM_EMAIL: str = env.str("ALERT_FROM", default="prihod@localhost")
globals().update(environment.email_by(env.str("EMAIL_URL", default=""), needed=bool(ALERT_EMAILS)))

INSTALLED_APPS = [
    "config.apps.AdminConfig",
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
    "api",
    "ledger",
    "ingest",
    "worker",
    "monitoring",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "config.security.PagePolicy",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "config.hosts.HostCheck",
    "django.middleware.csrf.CsrfViewMiddleware",
    "config.pages.Authentication",
    "config.pages.SecondFactor",
    "config.pages.Messages",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "config.viewing.ForViewer",
    "axes.middleware.AxesMiddleware",
    "config.hashing.PasswordLimit",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEST_RUNNER = "tests.runner.PytestRunner"

TEMPLATES = [templating.PAGES]

# --- security: config/security.py has the values and the reasons ---------------------------------

globals().update(security.LOGIN)
CONTENT_SECURITY_POLICY = security.PAGE_POLICY
SECOND_FACTOR_REQUIRED: bool = env.bool("SECOND_FACTOR_REQUIRED", default=False)
if env.bool("BEHIND_TLS_PROXY", default=False):
    globals().update(security.behind_tls_proxy())

# --- the database ---------------------------------------------------------------------------------

DATABASE = environment.database_at(
    needed_in_production("DATABASE_URL", stand_in=""), stand_in=DATA_DIR / "prihod.sqlite3"
)
DATABASE |= {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True, "ATOMIC_REQUESTS": False}
DATABASES = {"default": DATABASE}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Celery: config/queueing.py has what no environment changes -----------------------------------

REDIS_URL = needed_in_production("REDIS_URL", stand_in="")
globals().update(environment.broker_at(REDIS_URL, stand_in=DATA_DIR / "broker"))  # CELERY_BROKER_…
globals().update(queueing.fixed(SWEEP_EVERY_SECONDS))

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
LOG_LEVEL: str = env.get_value("LOG_LEVEL", cast=logs.level_named, default="INFO")
LOGGING = logs.configure(level=LOG_LEVEL, as_json=not DEBUG)
SENTRY_DSN = environment.Secret(env.str("SENTRY_DSN", default=""))
SENTRY_ENVIRONMENT: str = env.str("SENTRY_ENVIRONMENT", default="development" if DEBUG else "production")
OTEL_SERVICE_NAME: str = env.str("OTEL_SERVICE_NAME", default="prihod")
TRACED = bool(env.str("OTEL_EXPORTER_OTLP_ENDPOINT", default=""))
observing.begin(dsn=SENTRY_DSN, environment=SENTRY_ENVIRONMENT, traces=TRACED)
warnings.filterwarnings("ignore", "No directory at")  # of WhiteNoise; the finders are enough
if DEBUG:  # in production Celery is right to advise against root
    warnings.filterwarnings("ignore", "You're running the worker with superuser privileges")
