"""Who may deliver: tried before anything of a delivery is parsed or stored.

Each door has a guard, which the settings make of the environment; docs/security.md says what each kind of
proof is good for. Whatever doesn't fit is turned away, and the reason is for the log alone.
"""

import base64
import hmac
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network

import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

from core.client_ip import client_ip
from core.log_throttle import LogThrottle
from ingest.exceptions import Misconfigured, NotAuthorized, Setting
from ingest.signatures import hex_signature, signature, verify_jws

log = structlog.get_logger(__name__)

TOLERANCE_SECONDS = 300
SECRET_CHARS_MIN = 16
_TIMESTAMP = re.compile(r"[0-9]{1,12}")  # Unix seconds

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, kw_only=True)
class DeliveryAuth:
    """What a delivery must show at one door. Sequences, so that a secret can change without losing a webhook.

    It must come from one of the networks, if there are any; be a token by one of the public keys, if there
    are any; and show one of the secrets, credentials and tokens, if there are any. A guard that knows nothing
    at all lets nobody in, unless `everybody` may.
    """

    networks: Sequence[Network] = ()
    public_keys: Sequence[RSAPublicKey] = ()
    # An error page of development shows the settings by their repr.
    secrets: Sequence[bytes] = field(default=(), repr=False)  # of Standard Webhooks
    x_signature_secrets: Sequence[bytes] = field(default=(), repr=False)
    basic: Sequence[bytes] = field(default=(), repr=False)
    bearer: Sequence[bytes] = field(default=(), repr=False)
    tolerance_seconds: int = TOLERANCE_SECONDS
    allow_anonymous: bool = False

    @property
    def requires_credentials(self) -> bool:
        return bool(self.secrets or self.x_signature_secrets or self.basic or self.bearer)

    @property
    def is_configured(self) -> bool:
        return bool(self.networks or self.public_keys or self.requires_credentials)


# What the environment's variables hold, each as its guard compares it. All raise ValueError.


def parse_secret(text: str) -> bytes:
    """A token or secret that can stand in a header and be guessed by nobody."""
    if len(text) < SECRET_CHARS_MIN or not re.fullmatch("[!-~]+", text):
        raise ValueError(f"not {SECRET_CHARS_MIN} or more visible ASCII characters")
    return text.encode()


def parse_basic_credentials(user_and_password: str) -> bytes:
    """What stands in Authorization behind "Basic " for user:password (RFC 7617, in UTF-8)."""
    user, _, password = user_and_password.partition(":")
    if not user or len(password) < SECRET_CHARS_MIN:
        raise ValueError(f"no user, or a password of less than {SECRET_CHARS_MIN} characters")
    return base64.b64encode(user_and_password.encode())


def parse_network(text: str) -> Network:
    """A CIDR; one of IPv4-mapped addresses is that of IPv4, as the addresses compared with it are."""
    found = ip_network(text)
    if isinstance(found, IPv6Network) and found.prefixlen >= 96 and found[0].ipv4_mapped:
        return ip_network(f"{found[0].ipv4_mapped}/{found.prefixlen - 96}")
    return found


def endpoint_auth(auth: str, *, debug: bool, **told: DeliveryAuth) -> Mapping[str, DeliveryAuth]:
    """The guards of the doors that are open, by the door's name; `auth` is WEBHOOK_AUTH, and about `bank`.

    Whoever may deliver can credit money, so in production somebody has to say who, and to say it once.
    """
    if auth not in {"", "none"}:
        raise ImproperlyConfigured("WEBHOOK_AUTH is malformed; it can only be none. See .env.example")
    known = {name: guard for name, guard in told.items() if guard.is_configured}
    if auth and "bank" in known:
        raise ImproperlyConfigured(
            "WEBHOOK_AUTH=none contradicts the WEBHOOK_ variables that say who may deliver"
        )
    if not (auth or debug or known):
        raise ImproperlyConfigured(
            "nothing says who may deliver webhooks; with DEBUG=0 set WEBHOOK_SECRETS or another of the"
            " WEBHOOK_ variables in .env.example, or WEBHOOK_AUTH=none to let everybody"
        )
    return {"bank": DeliveryAuth(allow_anonymous=True), **known} if auth or debug else known


def check_tenant_restriction(
    tochka: DeliveryAuth, tochka_customers: Sequence[str], tbank: DeliveryAuth
) -> None:
    """A bank delivers for all its customers with one key, and from the same addresses: neither says for whom.

    Any customer could have the bank tell us of payments to itself. Raises ImproperlyConfigured.
    """
    if tochka.is_configured and not tochka_customers:
        raise ImproperlyConfigured("TOCHKA_PUBLIC_KEY_FILE is set; then TOCHKA_CUSTOMER_CODES must be")
    if tbank.is_configured and not tbank.requires_credentials:
        raise ImproperlyConfigured(
            "TBANK_NETWORKS is set; then TBANK_BASIC_AUTH or TBANK_BEARER_TOKENS must be"
        )


# The doorkeeper's work.


def auth_for(endpoint: str) -> DeliveryAuth:
    """The guard of the door of this name. Raises Misconfigured if nothing is set to know its bank by."""
    if guard := settings.ENDPOINT_AUTH.get(endpoint):
        return guard
    raise Misconfigured(Setting.CREDENTIALS, endpoint)


def check_network(request: HttpRequest, guard: DeliveryAuth) -> None:
    """Nothing of the body has been read yet. Raises NotAuthorized, or Misconfigured if it can't be said where a
    delivery comes from.
    """
    if guard.networks:
        address = client_ip(request)
        if address is None and settings.TRUSTED_PROXIES:  # they are fewer, or don't say it
            raise Misconfigured(Setting.TRUSTED_PROXIES, "the sender's address is unknown")
        if address is None or not any(address in known for known in guard.networks):
            raise NotAuthorized("unknown network")


def verified_payload(request: HttpRequest, guard: DeliveryAuth) -> bytes:
    """What is to be parsed: the body, or what the bank's token holds. Raises NotAuthorized."""
    if guard.allow_anonymous:
        return request.body
    if not guard.is_configured:
        raise NotAuthorized("no credentials are configured")
    if guard.requires_credentials:
        _check_credentials(request, guard)
    if not guard.public_keys:
        return request.body
    payload = verify_jws(request.body.strip(), guard.public_keys)
    if payload is None:
        raise NotAuthorized("no token by a known key")
    return payload


def _check_credentials(request: HttpRequest, guard: DeliveryAuth) -> None:
    """One that is known is enough. Raises NotAuthorized."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    known = {"basic": guard.basic, "bearer": guard.bearer}.get(scheme.lower(), ())
    if _matches_any(credentials.strip(" "), known):
        return
    if guard.x_signature_secrets and (shown := request.headers.get("X-Signature", "")):
        expected = [hex_signature(key, request.body) for key in guard.x_signature_secrets]
        if _matches_any(shown.lower(), expected):
            return
    if guard.secrets and "webhook-signature" in request.headers:
        _check_standard_webhooks_signature(request, guard)
        return
    raise NotAuthorized("no known credentials")


def _check_standard_webhooks_signature(request: HttpRequest, guard: DeliveryAuth) -> None:
    """By the headers webhook-id, webhook-timestamp and webhook-signature. Raises NotAuthorized."""
    webhook_id, timestamp = (request.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp"))
    # With a full stop in it an id could borrow from the timestamp behind it.
    if not webhook_id or "." in webhook_id or not _TIMESTAMP.fullmatch(timestamp):
        raise NotAuthorized("malformed webhook-id or webhook-timestamp")
    expected = [signature(key, webhook_id, timestamp, request.body) for key in guard.secrets]
    if not any(_matches_any(one, expected) for one in request.headers["webhook-signature"].split(" ")):
        raise NotAuthorized("wrong webhook-signature")
    if abs(int(time.time()) - int(timestamp)) > guard.tolerance_seconds:
        raise NotAuthorized("webhook-timestamp out of tolerance")


def _matches_any(shown: str, known: Iterable[bytes]) -> bool:
    """In constant time, and as bytes, because of text compare_digest takes ASCII only."""
    return any(hmac.compare_digest(shown.encode(), one) for one in known)


throttle = LogThrottle()


def log_denied(endpoint: str, reason: str, request: HttpRequest) -> None:
    """Log a refusal, at most once per core.log_throttle.EVERY_SECONDS for each door and reason.

    The line holds nothing that the stranger sent, only the address it came from.
    """
    suppressed = throttle.suppressed((endpoint, reason))
    if suppressed is not None:
        address = str(client_ip(request))
        log.warning(
            "delivery not authorized",
            endpoint=endpoint,
            reason=reason,
            address=address,
            suppressed=suppressed,
        )
