"""The state of alerts, so that a restart neither loses nor repeats one, and the throughput per minute."""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Alert(models.Model):
    """A problem that persists, or whose resolution has not been sent yet. One row per cause."""

    cause = models.CharField(_("cause"), max_length=64, primary_key=True)
    severity = models.PositiveSmallIntegerField(_("severity"))
    text = models.TextField(_("text"))
    remedy = models.TextField(_("remedy"))
    magnitude = models.PositiveIntegerField(_("magnitude"), help_text=_("number of affected rows"))
    started_at = models.DateTimeField(_("started at"))
    seen_count = models.PositiveSmallIntegerField(
        _("seen"), default=0, help_text=_("consecutive checks that found it")
    )
    notified_at = models.DateTimeField(_("notified at"), null=True)
    notified_magnitude = models.PositiveIntegerField(_("notified magnitude"), default=0)
    cleared_at = models.DateTimeField(_("cleared at"), null=True)
    clear_count = models.PositiveSmallIntegerField(
        _("clear"), default=0, help_text=_("consecutive checks that did not find it")
    )

    objects: ClassVar[models.Manager["Alert"]] = models.Manager()

    class Meta:
        verbose_name = _("alert")
        verbose_name_plural = _("alerts")

    def __str__(self) -> str:
        return self.cause


class AlertLease(models.Model):
    """The time of the next check: one row, by which processes elect the one that runs it."""

    due_at = models.DateTimeField()

    objects: ClassVar[models.Manager["AlertLease"]] = models.Manager()

    def __str__(self) -> str:
        return f"due at {self.due_at:%Y-%m-%d %H:%M:%S}"


class MinuteThroughput(models.Model):
    """Webhooks received and payments posted in a complete minute."""

    started_at = models.DateTimeField(primary_key=True)
    received = models.PositiveIntegerField(help_text=_("stored webhooks"))
    applied = models.PositiveIntegerField(help_text=_("posted payments"))

    objects: ClassVar[models.Manager["MinuteThroughput"]] = models.Manager()

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M}"
