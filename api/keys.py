"""API keys: issue one, tell whose one is, note that it was used, revoke it.

A key reads `prihod_<prefix>_<secret>`. The prefix is no secret: by it the row is found, and people speak of
the key. The secret is 256 random bits. That is why one SHA-256 of the key is enough to store: a slow hash
with salt protects what people make up and others guess. Nobody guesses 256 bits, and each read would pay.
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

from api.models import READ_ALL, ApiKey
from core.best_effort import best_effort_write

NOTED_EVERY = timedelta(minutes=1)
SCOPES_MAX = 1000  # organizations of one key; all of them are looked through at each read
SECRET_BYTES = 32
_KEY = re.compile(r"prihod_(?P<prefix>[0-9a-f]{12})_[0-9A-Za-z_-]{43}")
_ORGANIZATION = re.compile(r"[0-9]{10}|[0-9]{12}")  # the shape of an INN; it need not be open yet
_NOBODYS_DIGEST = "0" * 64

log = structlog.get_logger(__name__)


def issue(name: str, scopes: str, expires_at: datetime | None = None) -> tuple[ApiKey, str]:
    """The new key's row, and the key, which is known here and now only. Raises ValidationError."""
    now = timezone.now()
    if expires_at and expires_at <= now:
        raise ValidationError(_("The expiry is past already."))
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
    """`text` as it is stored: each word once. Raises ValidationError."""
    words = sorted(set(text.replace(",", " ").split()))
    if words == [READ_ALL]:
        return READ_ALL
    if not words or len(words) > SCOPES_MAX or not all(map(_ORGANIZATION.fullmatch, words)):
        told = _("Scopes are {all} alone, or 1 to {max} INNs of 10 or 12 digits.")
        raise ValidationError(told.format(all=READ_ALL, max=SCOPES_MAX))
    return " ".join(words)


def prefix_of(key: str) -> str | None:
    """The prefix of whatever has a key's shape."""
    shaped = _KEY.fullmatch(key)
    return shaped and shaped["prefix"]


def authenticate(key: str) -> ApiKey | None:
    """The row of this key if it is valid now. The time it takes doesn't tell how nearly right the key is."""
    prefix = prefix_of(key)
    row = ApiKey.objects.filter(prefix=prefix).first() if prefix else None
    right = compare_digest(_digest(key), row.digest if row else _NOBODYS_DIGEST)
    return row if row and right and row.state(timezone.now()) == "valid" else None


def record_use(row: ApiKey) -> None:
    """Write down that the key was used, at most once a minute; nobody waits for that, or fails by it.

    A row that another session holds is being noted by it, or is about to be revoked: it is passed over.
    """
    now = timezone.now()
    long_ago = now - NOTED_EVERY
    if row.last_used_at and row.last_used_at > long_ago:
        return
    unnoted = ApiKey.objects.filter(Q(last_used_at=None) | Q(last_used_at__lte=long_ago), pk=row.pk)
    with best_effort_write("API key use not recorded"), transaction.atomic():
        if list(unnoted.select_for_update(skip_locked=True).values_list("pk")):
            unnoted.update(last_used_at=now)


def revoke(prefix: str) -> bool:
    """Whether there was such a key, not revoked before."""
    revoked = ApiKey.objects.filter(prefix=prefix, revoked_at=None).update(revoked_at=timezone.now())
    if revoked:
        log.info("API key revoked", prefix=prefix)
    return bool(revoked)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
