import pytest

from core.observability.logging import redact_event
from core.observability.redaction import exception_summary, redact_urls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:m4rker@host:6379/0", "redis://***@host:6379/0"),
        ("InvalidURL(\"nonnumeric port: 'm4rker@host'\") of http://user:m4r@ker@host/x", None),
        (
            "https://key@sentry.example/1 and mysql://u:m4rker@h/d",
            "https://***@sentry.example/1 and mysql://***@h/d",
        ),
        ("https://host/@channel?to=a@b", "https://host/@channel?to=a@b"),
        ("no URL: a@b", "no URL: a@b"),
    ],
)
def test_url_credentials_are_redacted(text: str, shown: str | None) -> None:
    assert redact_urls(text) == (shown or text.replace("user:m4r@ker@", "***@"))


@pytest.mark.parametrize("level", ["debug", "info", "error"])
def test_log_event_contains_no_url_credentials(level: str) -> None:
    event = {"level": level, "event": "lost", "error": repr(OSError("redis://:m4rker@host"))}
    assert "m4rker" not in str(redact_event(None, "", event))


def test_exception_summary_contains_no_argument() -> None:
    assert exception_summary(ValueError("http://u:m4rker@h")) == "ValueError"
    assert exception_summary(
        OSError(111, "Connection refused", "m4rker")
    ) == "OSError: Connection refused".replace("OSError", type(OSError(111, "x")).__name__)
