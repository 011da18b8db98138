"""As config/formats/en has them, in the order that Russians read; the rest is Django's for Russian."""

DATE_FORMAT = SHORT_DATE_FORMAT = "d.m.Y"
DATETIME_FORMAT = SHORT_DATETIME_FORMAT = "d.m.Y H:i:s"
