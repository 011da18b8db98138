"""What the worker's processes leave for people to look at; nothing here is needed to apply a webhook."""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Heartbeat(models.Model):
    """The last sign of life of a worker, with all its pool, or of a scheduler."""

    class Kind(models.TextChoices):
        WORKER = "worker", _("worker")
        SCHEDULER = "beat", _("scheduler")

    name = models.CharField(
        _("name"), max_length=255, primary_key=True, help_text=_("what it is, and the host it is on")
    )
    kind = models.CharField(_("kind"), max_length=6, choices=Kind.choices)
    processes = models.PositiveIntegerField(_("processes"), help_text=_("that apply webhooks"))
    seen_at = models.DateTimeField(_("last beat"), help_text=_("by the database's clock"))

    objects: ClassVar[models.Manager["Heartbeat"]] = models.Manager()

    class Meta:
        verbose_name = _("beat")
        verbose_name_plural = _("beats")

    def __str__(self) -> str:
        return self.name


class Lease(models.Model):
    """What only one process at a time may do; of one that died it ends by itself."""

    name = models.CharField(max_length=64, primary_key=True)
    until = models.DateTimeField()  # by the database's clock

    objects: ClassVar[models.Manager["Lease"]] = models.Manager()

    def __str__(self) -> str:
        return f"{self.name} until {self.until:%Y-%m-%d %H:%M:%S}"


class Checkpoint(models.Model):
    """How far a task has come that goes through a table in its own time; the next run goes on from there."""

    task = models.CharField(max_length=64, primary_key=True)
    key = models.BigIntegerField()  # primary key of the last row that is done

    objects: ClassVar[models.Manager["Checkpoint"]] = models.Manager()

    def __str__(self) -> str:
        return f"{self.task}: {self.key}"
