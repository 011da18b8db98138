"""API keys, and the counters of failed requests."""

from datetime import datetime

from django.db import models
from django.utils.translation import gettext_lazy as _

READ_ALL = "read:all"
WRITE_STATEMENTS = "write:bank-statements"


class ApiKey(models.Model):
    """A key by which a program reads balances or uploads bank statements.

    Only its digest is stored; see api/keys.py.
    """

    name = models.CharField(_("name"), max_length=100, help_text=_("the program or person that uses the key"))
    prefix = models.CharField(_("prefix"), max_length=12, unique=True)
    digest = models.CharField(max_length=64)  # SHA-256 of the whole key, in hexadecimal
    scopes = models.TextField(
        _("scopes"),
        help_text=_("read:all, or INNs that may be read; write:bank-statements; separated by spaces"),
    )
    created_at = models.DateTimeField(_("issued"))
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True)

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        # Keys are neither edited nor deleted; see api/admin.py.
        default_permissions = ("add", "view")
        permissions = [("revoke_apikey", "Can revoke API key")]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"

    @property
    def reads_all(self) -> bool:
        return self.has_scope(READ_ALL)

    def has_scope(self, scope: str) -> bool:
        return scope in self.scopes.split()

    def may_read(self, inn: str) -> bool:
        return self.reads_all or inn in self.scopes.split()

    def state(self, now: datetime) -> str:
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at and self.expires_at <= now else "valid"


class FailedReadCount(models.Model):
    """Failed requests of all callers of one bucket in one minute; see api/throttling.py."""

    bucket = models.IntegerField(primary_key=True)
    minute = models.BigIntegerField()  # since 1970
    failures = models.IntegerField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.failures} failures of bucket {self.bucket} in minute {self.minute}"
