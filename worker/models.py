"""State of the worker processes themselves; applying a webhook needs none of it."""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Heartbeat(models.Model):
    """The last heartbeat of a worker, for its whole pool, or of a scheduler."""

    class Kind(models.TextChoices):
        WORKER = "worker", _("worker")
        SCHEDULER = "scheduler", _("scheduler")

    name = models.CharField(_("name"), max_length=255, primary_key=True, help_text=_("process and host"))
    kind = models.CharField(_("kind"), max_length=9, choices=Kind.choices)
    processes = models.PositiveIntegerField(_("processes"), help_text=_("that apply webhooks"))
    seen_at = models.DateTimeField(_("last heartbeat"), help_text=_("by the database's clock"))

    objects: ClassVar[models.Manager["Heartbeat"]] = models.Manager()

    class Meta:
        verbose_name = _("heartbeat")
        verbose_name_plural = _("heartbeats")

    def __str__(self) -> str:
        return self.name


class Lease(models.Model):
    """The right of one process at a time to run a task; the lease of a dead process expires."""

    name = models.CharField(max_length=64, primary_key=True)
    expires_at = models.DateTimeField()  # by the database's clock

    objects: ClassVar[models.Manager["Lease"]] = models.Manager()

    def __str__(self) -> str:
        return f"{self.name} until {self.expires_at:%Y-%m-%d %H:%M:%S}"


class Checkpoint(models.Model):
    """The position of a task that scans a table; its next run continues from there."""

    task = models.CharField(max_length=64, primary_key=True)
    key = models.BigIntegerField()  # primary key of the last row done

    objects: ClassVar[models.Manager["Checkpoint"]] = models.Manager()

    def __str__(self) -> str:
        return f"{self.task}: {self.key}"
