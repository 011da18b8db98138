"""What alerts have to remember, so that a restart neither forgets nor repeats."""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Alert(models.Model):
    """A cause of trouble that goes on, or that is over and wasn't yet said to be. One row for each cause."""

    cause = models.CharField(_("cause"), max_length=64, primary_key=True)
    level = models.PositiveSmallIntegerField(_("level"))
    text = models.TextField(_("text"))
    to_do = models.TextField(_("what to do"))
    size = models.PositiveIntegerField(_("size"), help_text=_("how much of it there is"))
    began_at = models.DateTimeField(_("began at"))
    looks = models.PositiveSmallIntegerField(_("looks"), default=0, help_text=_("in a row that saw it"))
    told_at = models.DateTimeField(_("told at"), null=True)
    told_size = models.PositiveIntegerField(_("size when told"), default=0)
    gone_at = models.DateTimeField(_("gone at"), null=True)
    looks_without = models.PositiveSmallIntegerField(
        _("looks without"), default=0, help_text=_("in a row that saw it no more")
    )

    objects: ClassVar[models.Manager["Alert"]] = models.Manager()

    class Meta:
        verbose_name = _("alert")
        verbose_name_plural = _("alerts")

    def __str__(self) -> str:
        return self.cause


class Watch(models.Model):
    """When somebody is to look again: one row, by which those who look take turns."""

    due_at = models.DateTimeField()

    objects: ClassVar[models.Manager["Watch"]] = models.Manager()

    def __str__(self) -> str:
        return f"due at {self.due_at:%Y-%m-%d %H:%M:%S}"
