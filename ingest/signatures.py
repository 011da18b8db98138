"""Verification of signatures: HMAC with a shared secret, and tokens signed with the bank's private key.

* Standard Webhooks 1.0, symmetric, https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
  The package `standardwebhooks` takes only one secret, and its tolerance is fixed.
* JSON Web Signature, compact, RS256 (RFC 7515), by PyJWT.
"""

import base64
import hmac
import re
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWS, PyJWTError
from jwt.utils import base64url_decode

# Three parts in base64url (RFC 7515, section 7.1). The decoder would skip any other character.
_TOKEN = re.compile(rb"[\w-]+\.([\w-]*)\.[\w-]*")
# Accepts no other algorithm: not "none", and not HS256, which would take the public key as its secret.
_RS256 = PyJWS(algorithms=["RS256"])


def signature(key: bytes, webhook_id: str, timestamp: str, body: bytes) -> bytes:
    """Return one signature of the header webhook-signature: `v1,` and base64. `timestamp`: Unix seconds."""
    signed = b"%b.%b.%b" % (webhook_id.encode(), timestamp.encode(), body)
    return b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))


def hex_signature(key: bytes, body: bytes) -> bytes:
    """Return the value of the header X-Signature: the body's HMAC-SHA256 in hexadecimal digits."""
    return hmac.digest(key, body, "sha256").hex().encode()


def unverified_payload(body: bytes) -> bytes:
    """Return the payload of `body` if it is a token, else `body`. Verifies nothing: for display and parsing
    of stored bodies only."""
    token = _TOKEN.fullmatch(body.strip())
    try:
        return base64url_decode(token[1]) if token else body
    except ValueError:
        return body


def verify_jws(token: bytes, keys: Iterable[RSAPublicKey]) -> bytes | None:
    """Return the payload of `token` if one of `keys` signed it by RS256, else None.

    The header decides nothing: `alg` must be RS256, `kid`, `jwk` and `x5u` are ignored, and a `crit` that
    PyJWT doesn't support is refused. Claims such as `exp` are left to the payload's reader.
    """
    for key in keys:
        try:
            payload: bytes = _RS256.decode_complete(token, key, algorithms=["RS256"])["payload"]
        except PyJWTError:
            continue
        return payload
    return None
