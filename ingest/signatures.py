"""What only the bank can have written: signatures by a shared secret, and tokens by its private key.

* Standard Webhooks 1.0, symmetric, https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
  The package `standardwebhooks` takes one secret, and has its tolerance built in.
* JSON Web Signature, compact, RS256 (RFC 7515), by PyJWT.
"""

import base64
import hmac
import re
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWS, PyJWTError
from jwt.utils import base64url_decode

# Three parts in base64url (RFC 7515, section 7.1). The decoder would pass over any other character.
_TOKEN = re.compile(rb"[\w-]+\.([\w-]*)\.[\w-]*")
# No other algorithm is known to it: not "none", and not HS256, whose secret the public key would be.
_RS256 = PyJWS(algorithms=["RS256"])


def signature(key: bytes, webhook_id: str, timestamp: str, body: bytes) -> bytes:
    """One signature as in the header webhook-signature: `v1,` and base64. Timestamp: Unix seconds."""
    signed = b"%b.%b.%b" % (webhook_id.encode(), timestamp.encode(), body)
    return b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))


def hex_signature(key: bytes, body: bytes) -> bytes:
    """The header X-Signature: hexadecimal digits of the body's HMAC-SHA256."""
    return hmac.digest(key, body, "sha256").hex().encode()


def unverified_payload(body: bytes) -> bytes:
    """What a token holds, if `body` is one, and otherwise `body`. Only to show: it proves nothing."""
    token = _TOKEN.fullmatch(body.strip())
    try:
        return base64url_decode(token[1]) if token else body
    except ValueError:
        return body


def verify_jws(token: bytes, keys: Iterable[RSAPublicKey]) -> bytes | None:
    """The payload's bytes, if one of the keys signed them by RS256; None otherwise.

    The header chooses nothing: `alg` must be RS256, `kid`, `jwk` and `x5u` are not looked at, and a `crit`
    that PyJWT doesn't know is refused. Claims such as `exp` are the payload's business, like all in it.
    """
    for key in keys:
        try:
            payload: bytes = _RS256.decode_complete(token, key, algorithms=["RS256"])["payload"]
        except PyJWTError:
            continue
        return payload
    return None
