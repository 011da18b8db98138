"""API keys: issuing, authentication, recording of use, revocation.

A key has the form `prihod_<prefix>_<secret>`. The prefix is public and identifies the row, also in
conversation. The secret has 256 random bits, therefore a single SHA-256 of the key is enough to store: slow
salted hashes protect passwords, which can be guessed, and would cost every read.
"""

import hashlib
import re
import secrets
from datetime import datetime, timedelta
from hmac import compare_digest

import structlog
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from api.models import READ_ALL, WRITE_STATEMENTS, ApiKey
from core.best_effort import best_effort_write

USE_RECORDED_EVERY = timedelta(minutes=1)
SCOPES_MAX = 1000  # organizations per key; every read scans all of them
SECRET_BYTES = 32
_KEY = re.compile(r"prihod_(?P<prefix>[0-9a-f]{12})_[0-9A-Za-z_-]{43}")
_ORGANIZATION = re.compile(
    r"[0-9]{10}|[0-9]{12}"
)  # the format of an INN; the organization need not exist yet
_NO_DIGEST = "0" * 64

log = structlog.get_logger(__name__)


def issue(name: str, scopes: str, expires_at: datetime | None = None) -> tuple[ApiKey, str]:
    """Create a key; return its row and the key itself, which is not stored. Raise ValidationError."""
    now = timezone.now()
    if expires_at and expires_at <= now:
        raise ValidationError(_("The expiry date is in the past."))
    prefix = secrets.token_hex(6)
    key = f"prihod_{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
    row = ApiKey(
        name=name,
        prefix=prefix,
        digest=_digest(key),
        scopes=normalize_scopes(scopes),
        created_at=now,
        expires_at=expires_at,
    )
    row.full_clean()
    row.save(force_insert=True)
    log.info("API key issued", prefix=prefix, name=name)
    return row, key


def normalize_scopes(text: str) -> str:
    """Return the scopes sorted and without duplicates. Raise ValidationError."""
    scopes = set(text.replace(",", " ").split())
    read = scopes - {WRITE_STATEMENTS}
    is_valid = read == {READ_ALL} or all(map(_ORGANIZATION.fullmatch, read))
    if not scopes or len(scopes) > SCOPES_MAX or not is_valid:
        message = _("Scopes are {all} or up to {max} INNs of 10 or 12 digits, and {write}.")
        raise ValidationError(message.format(all=READ_ALL, max=SCOPES_MAX, write=WRITE_STATEMENTS))
    return " ".join(sorted(scopes))


def prefix_of(key: str) -> str | None:
    """Return the prefix of a well-formed key, valid or not."""
    match = _KEY.fullmatch(key)
    return match and match["prefix"]


def authenticate(key: str) -> ApiKey | None:
    """Return the row of a valid key. The response time doesn't reveal how much of the key is right."""
    prefix = prefix_of(key)
    row = ApiKey.objects.filter(prefix=prefix).first() if prefix else None
    matches = compare_digest(_digest(key), row.digest if row else _NO_DIGEST)
    return row if row and matches and row.state(timezone.now()) == "valid" else None


def record_use(row: ApiKey) -> None:
    """Update last_used_at at most once per USE_RECORDED_EVERY, without waiting for locks and without raising.

    A row that another session has locked is being updated by it or revoked, so it is skipped.
    """
    now = timezone.now()
    outdated = now - USE_RECORDED_EVERY
    if row.last_used_at and row.last_used_at > outdated:
        return
    due = ApiKey.objects.filter(Q(last_used_at=None) | Q(last_used_at__lte=outdated), pk=row.pk)
    with best_effort_write("API key use not recorded"), transaction.atomic():
        if list(due.select_for_update(skip_locked=True).values_list("pk")):
            due.update(last_used_at=now)


def revoke(prefix: str) -> bool:
    """Revoke a key; return False if there is no such key or it was revoked before."""
    revoked = ApiKey.objects.filter(prefix=prefix, revoked_at=None).update(revoked_at=timezone.now())
    if revoked:
        log.info("API key revoked", prefix=prefix)
    return bool(revoked)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
