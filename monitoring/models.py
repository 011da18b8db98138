"""What alerts have to remember, so that a restart neither forgets nor repeats."""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Alert(models.Model):
    """A cause of trouble that goes on, or that is over and wasn't yet said to be. One row for each cause."""

    cause = models.CharField(_("cause"), max_length=64, primary_key=True)
    level = models.PositiveSmallIntegerField(_("level"))
    text = models.TextField(_("text"))
    remedy = models.TextField(_("what to do"))
    size = models.PositiveIntegerField(_("size"), help_text=_("how much of it there is"))
    started_at = models.DateTimeField(_("began at"))
    looks = models.PositiveSmallIntegerField(_("looks"), default=0, help_text=_("in a row that saw it"))
    notified_at = models.DateTimeField(_("told at"), null=True)
    notified_magnitude = models.PositiveIntegerField(_("size when told"), default=0)
    cleared_at = models.DateTimeField(_("gone at"), null=True)
    clear_count = models.PositiveSmallIntegerField(
        _("looks without"), default=0, help_text=_("in a row that saw it no more")
    )

    objects: ClassVar[models.Manager["Alert"]] = models.Manager()

    class Meta:
        verbose_name = _("alert")
        verbose_name_plural = _("alerts")

    def __str__(self) -> str:
        return self.cause


class AlertLease(models.Model):
    """When somebody is to look again: one row, by which those who look take turns."""

    due_at = models.DateTimeField()

    objects: ClassVar[models.Manager["AlertLease"]] = models.Manager()

    def __str__(self) -> str:
        return f"due at {self.due_at:%Y-%m-%d %H:%M:%S}"


class MinuteThroughput(models.Model):
    """How much came and was applied in a minute that is over; counted once, so that nobody counts again."""

    started_at = models.DateTimeField(primary_key=True)
    received = models.PositiveIntegerField(help_text=_("webhooks that were stored"))
    applied = models.PositiveIntegerField(help_text=_("payments that were posted"))

    objects: ClassVar[models.Manager["MinuteThroughput"]] = models.Manager()

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M}"
