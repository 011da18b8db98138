"""Configuration of webhook authentication: what a delivery must prove, and the parsers of these settings.

ingest/authentication.py applies it; docs/security.md compares the schemes.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from django.core.exceptions import ImproperlyConfigured

TOLERANCE_SECONDS = 300
SECRET_CHARS_MIN = 16
SECRET_PREFIX = "whsec_"  # noqa: S105 a prefix, no secret
KEY_BYTES_MIN = 24
KEY_BYTES_MAX = 64
RSA_BITS_MIN = 2048  # RFC 7518, section 3.3

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, kw_only=True)
class DeliveryAuth:
    """The authentication that one endpoint requires. Sequences allow secrets to be rotated without downtime.

    A delivery must come from one of the networks, if any; be a token signed by one of the public keys, if
    any; and prove one of the secrets, credentials or tokens, if any. With none of these every delivery is
    denied, unless `allow_anonymous` is set.
    """

    networks: Sequence[Network] = ()
    public_keys: Sequence[RSAPublicKey] = ()
    # No repr, because a development error page shows the settings.
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


def endpoint_auth(auth: str, *, debug: bool, **configured: DeliveryAuth) -> Mapping[str, DeliveryAuth]:
    """Return the authentication of each enabled endpoint, by name; `auth` is WEBHOOK_AUTH, about `bank`.

    A delivery can credit money, so production requires an explicit and unambiguous choice. Raise
    ImproperlyConfigured otherwise.
    """
    if auth not in {"", "none"}:
        raise ImproperlyConfigured("WEBHOOK_AUTH is malformed; it can only be none. See .env.example")
    enabled = {name: endpoint for name, endpoint in configured.items() if endpoint.is_configured}
    if auth and "bank" in enabled:
        raise ImproperlyConfigured("WEBHOOK_AUTH=none contradicts the other WEBHOOK_ variables that are set")
    if not (auth or debug or enabled):
        raise ImproperlyConfigured(
            "no webhook authentication is configured; with DEBUG=0 set WEBHOOK_SECRETS or another of the"
            " WEBHOOK_ variables in .env.example, or WEBHOOK_AUTH=none to accept every delivery"
        )
    return {"bank": DeliveryAuth(allow_anonymous=True), **enabled} if auth or debug else enabled


# Parsers of the environment's variables. Each raises ValueError without quoting the text, which is secret.


def parse_secret(text: str) -> bytes:
    """Return a token or secret that fits into a header and is too long to guess."""
    if len(text) < SECRET_CHARS_MIN or not re.fullmatch("[!-~]+", text):
        raise ValueError(f"not {SECRET_CHARS_MIN} or more visible ASCII characters")
    return text.encode()


def decode_secret(text: str) -> bytes:
    """Decode the key of a Standard Webhooks secret, `whsec_` and base64."""
    if not text.startswith(SECRET_PREFIX):
        raise ValueError(f"a secret begins with {SECRET_PREFIX}")
    key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise ValueError(f"a secret holds {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes")
    return key


def parse_basic_credentials(user_and_password: str) -> bytes:
    """Encode user:password as after "Basic " in the Authorization header (RFC 7617, in UTF-8)."""
    user, _, password = user_and_password.partition(":")
    if not user or len(password) < SECRET_CHARS_MIN:
        raise ValueError(f"no user, or a password of less than {SECRET_CHARS_MIN} characters")
    return base64.b64encode(user_and_password.encode())


def parse_network(text: str) -> Network:
    """Parse a CIDR; a network of IPv4-mapped addresses becomes one of IPv4, as in `core.client_ip`."""
    cidr = ip_network(text)
    if isinstance(cidr, IPv6Network) and cidr.prefixlen >= 96 and cidr[0].ipv4_mapped:
        return ip_network(f"{cidr[0].ipv4_mapped}/{cidr.prefixlen - 96}")
    return cidr


def load_public_key(file: str) -> RSAPublicKey:
    """Load an RSA public key of at least RSA_BITS_MIN bits from a PEM file."""
    try:
        key = load_pem_public_key(Path(file).read_bytes())
    except OSError as exc:
        raise ValueError(f"can't be read: {exc.strerror}") from exc
    if not isinstance(key, RSAPublicKey) or key.key_size < RSA_BITS_MIN:
        raise ValueError(f"holds no RSA public key of {RSA_BITS_MIN} bits or more")
    return key
