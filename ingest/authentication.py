"""Authentication of deliveries, before anything of them is parsed or stored.

Each endpoint has a DeliveryAuth, which the settings build from the environment; docs/security.md compares the
kinds of credentials. A delivery that fails is answered 401, and the reason is only logged.
"""

import hmac
import re
import time
from collections.abc import Iterable, Mapping

import structlog
from django.conf import settings
from django.http import HttpRequest

from core.client_ip import Address
from core.delivery_auth import DeliveryAuth
from core.log_throttle import LogThrottle
from ingest.exceptions import Misconfigured, NotAuthorized, Setting
from ingest.signatures import hex_signature, signature, verify_jws

log = structlog.get_logger(__name__)
throttle = LogThrottle()
_TIMESTAMP = re.compile(r"[0-9]{1,12}")  # Unix seconds


def auth_for(endpoint: str) -> DeliveryAuth:
    """Return the endpoint's authentication. Raise Misconfigured if none is configured."""
    if auth := settings.ENDPOINT_AUTH.get(endpoint):
        return auth
    raise Misconfigured(Setting.CREDENTIALS, endpoint)


def check_network(address: Address | None, auth: DeliveryAuth) -> None:
    """Check the client IP, before the body is read.

    Raise NotAuthorized, or Misconfigured if TRUSTED_PROXIES doesn't match the proxies that there are.
    """
    if auth.networks:
        if address is None and settings.TRUSTED_PROXIES:  # fewer proxies, or they don't forward the address
            raise Misconfigured(Setting.TRUSTED_PROXIES, "the sender's address is unknown")
        if address is None or not any(address in network for network in auth.networks):
            raise NotAuthorized("unknown network")


def verified_payload(body: bytes, request: HttpRequest, auth: DeliveryAuth) -> bytes:
    """Return the bytes to parse: the body, or the payload of the bank's token. Raise NotAuthorized."""
    if auth.allow_anonymous:
        return body
    if not auth.is_configured:
        raise NotAuthorized("no credentials are configured")
    if auth.requires_credentials:
        _check_credentials(body, request.headers, auth)
    if not auth.public_keys:
        return body
    payload = verify_jws(body.strip(), auth.public_keys)
    if payload is None:
        raise NotAuthorized("no token by a known key")
    return payload


def _check_credentials(body: bytes, headers: Mapping[str, str], auth: DeliveryAuth) -> None:
    """Accept any one valid credential. Raise NotAuthorized."""
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    valid = {"basic": auth.basic, "bearer": auth.bearer}.get(scheme.lower(), ())
    if _matches_any(credentials.strip(" "), valid):
        return
    if auth.x_signature_secrets and (given := headers.get("X-Signature", "")):
        valid = [hex_signature(key, body) for key in auth.x_signature_secrets]
        if _matches_any(given.lower(), valid):
            return
    if auth.secrets and "webhook-signature" in headers:
        _check_standard_webhooks_signature(body, headers, auth)
        return
    raise NotAuthorized("no known credentials")


def _check_standard_webhooks_signature(body: bytes, headers: Mapping[str, str], auth: DeliveryAuth) -> None:
    """Check the headers webhook-id, webhook-timestamp and webhook-signature. Raise NotAuthorized."""
    webhook_id, timestamp = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp"))
    # A full stop in the id would let it be split from the timestamp in another place.
    if not webhook_id or "." in webhook_id or not _TIMESTAMP.fullmatch(timestamp):
        raise NotAuthorized("malformed webhook-id or webhook-timestamp")
    valid = [signature(key, webhook_id, timestamp, body) for key in auth.secrets]
    if not any(_matches_any(given, valid) for given in headers["webhook-signature"].split(" ")):
        raise NotAuthorized("wrong webhook-signature")
    if abs(int(time.time()) - int(timestamp)) > auth.tolerance_seconds:
        raise NotAuthorized("webhook-timestamp out of tolerance")


def _matches_any(given: str, valid: Iterable[bytes]) -> bool:
    """Compare in constant time, and as bytes, because compare_digest accepts only ASCII text."""
    return any(hmac.compare_digest(given.encode(), each) for each in valid)


def log_denied(endpoint: str, reason: str, address: Address | None) -> None:
    """Log a denied delivery, at most once per core.log_throttle.EVERY_SECONDS for each endpoint and reason.

    The event holds nothing that the sender chose, only its IP address.
    """
    suppressed = throttle.suppressed((endpoint, reason))
    if suppressed is not None:
        log.warning(
            "delivery not authorized",
            endpoint=endpoint,
            reason=reason,
            address=str(address),
            suppressed=suppressed,
        )
