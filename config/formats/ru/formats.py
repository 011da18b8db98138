"""Date formats of the admin in Russian: with seconds; all others are Django's for Russian."""

DATE_FORMAT = SHORT_DATE_FORMAT = "d.m.Y"
DATETIME_FORMAT = SHORT_DATETIME_FORMAT = "d.m.Y H:i:s"
