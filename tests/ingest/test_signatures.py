"""Signatures: published test vectors, and forgeries that need only public data."""

import base64
import hmac
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from core.delivery_auth import decode_secret, load_public_key
from ingest.signatures import hex_signature, signature, unverified_payload, verify_jws

BANK = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PAYLOAD = b'{"amount": 1}'


def pem(public_key: Any) -> bytes:
    encoded: bytes = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def token(payload: bytes = PAYLOAD, key: Any = BANK, **header: Any) -> bytes:
    return jwt.PyJWS().encode(payload, key, algorithm="RS256", headers=header).encode()


def forged(header: dict[str, Any], sign: Any = lambda signed: b"") -> bytes:
    """Return a token that PyJWT refuses to create."""
    head, body = (
        base64.urlsafe_b64encode(part).rstrip(b"=") for part in (json.dumps(header).encode(), PAYLOAD)
    )
    signed = head + b"." + body
    return signed + b"." + base64.urlsafe_b64encode(sign(signed)).rstrip(b"=")


def test_signature_matches_the_reference_libraries() -> None:
    """Secret, message and signature are from the tests of standard-webhooks' reference libraries."""
    key = decode_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signed == b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_hex_signature_matches_rfc_4231() -> None:
    """RFC 4231, test case 2."""
    expected = b"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert hex_signature(b"Jefe", b"what do ya want for nothing?") == expected


@pytest.mark.parametrize("length", [0, 16, 23, 65])
def test_secret_of_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        decode_secret("whsec_" + base64.b64encode(bytes(length)).decode())


@pytest.mark.parametrize("secret", ["", base64.b64encode(bytes(32)).decode(), "whsec_%%%%", "whsec_AAA"])
def test_secret_that_is_none(secret: str) -> None:
    with pytest.raises(ValueError, match=r"begins with|base64|padding|bytes"):
        decode_secret(secret)


def test_signed_token_returns_its_payload_unchanged() -> None:
    odd = b'{"amount":  40.0 ,\n"amount": 41}'
    assert verify_jws(token(odd), [BANK.public_key()]) == odd


def test_both_keys_are_valid_during_rotation() -> None:
    keys = [STRANGER.public_key(), BANK.public_key()]
    assert verify_jws(token(), keys) == verify_jws(token(key=STRANGER), keys) == PAYLOAD


def test_kid_is_ignored() -> None:
    assert verify_jws(token(kid="../../etc/passwd"), [BANK.public_key()]) == PAYLOAD
    assert verify_jws(token(key=STRANGER, kid="bank"), [BANK.public_key()]) is None


def hs256_by_the_public_key(signed: bytes) -> bytes:
    return hmac.digest(pem(BANK.public_key()), signed, "sha256")


HEAD, _, SIGNED = token().rpartition(b".")


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(token(key=STRANGER), id="another's key"),
        pytest.param(forged({"alg": "none"}), id="none"),
        pytest.param(forged({"alg": "None"}), id="None"),
        pytest.param(forged({"alg": "HS256"}, hs256_by_the_public_key), id="HS256 by the public key"),
        pytest.param(forged({"alg": ["RS256"]}), id="algorithms"),
        pytest.param(forged({}), id="no algorithm"),
        pytest.param(jwt.PyJWS().encode(PAYLOAD, BANK, "RS512").encode(), id="RS512 by the right key"),
        pytest.param(jwt.PyJWS().encode(PAYLOAD, BANK, "PS256").encode(), id="PS256 by the right key"),
        pytest.param(token(crit=["exp"], exp=1), id="unknown crit"),
        pytest.param(token(jwk={"kty": "RSA"}, key=STRANGER), id="key in the header"),
        pytest.param(HEAD + b".", id="signature cut off"),
        pytest.param(HEAD + b"." + SIGNED[:-8], id="signature cut short"),
        pytest.param(HEAD, id="two parts"),
        pytest.param(token() + b".x", id="four parts"),
        pytest.param(b"", id="empty"),
        pytest.param(PAYLOAD, id="bare payload"),
        pytest.param(b"\xff\x00." * 3, id="garbage"),
        pytest.param(b"." * 65_536, id="dots"),
        pytest.param(base64.b64encode(b"[" * 40_000).rstrip(b"=") + b".e30.e30", id="nested header"),
    ],
)
def test_forged_token_is_refused(shown: bytes) -> None:
    assert verify_jws(shown, [BANK.public_key()]) is None


def test_payload_of_another_token_is_refused() -> None:
    head, _, signed = token().split(b".")
    _, other, _ = token(b'{"amount": 2}').split(b".")
    assert verify_jws(b".".join([head, other, signed]), [BANK.public_key()]) is None


def test_public_key_is_loaded_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "bank.pem").write_bytes(pem(BANK.public_key()))
    assert verify_jws(token(), [load_public_key(str(tmp_path / "bank.pem"))]) == PAYLOAD


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        pem(ec.generate_private_key(ec.SECP256R1()).public_key()),
        pem(rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()),
    ],
    ids=["empty", "text", "elliptic", "short"],
)
def test_file_without_rsa_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bank.pem").write_bytes(content)
    with pytest.raises(ValueError, match=r"PEM|no RSA public key"):
        load_public_key(str(tmp_path / "bank.pem"))


def test_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        load_public_key(str(tmp_path / "bank.pem"))


@pytest.mark.parametrize(
    "delivery",
    [
        b'{"amount": 1.50, "document_number": "PAY.3", "document_date": "2024-04-27"}',
        b'{"amount": 1.5, "document_number": "PAY-328", "document_date": "2024-04-27T21:00:00.123Z"}',
        b"..",
        b"",
    ],
)
def test_body_with_two_full_stops_is_no_token(delivery: bytes) -> None:
    """A token has only base64url characters and full stops."""
    assert unverified_payload(delivery) == delivery


def test_token_is_decoded_to_its_payload() -> None:
    assert unverified_payload(token()) == unverified_payload(b" " + token() + b"\n") == PAYLOAD
