from enum import StrEnum


class InvalidDelivery(Exception):
    """The delivery can never become valid. The message names the field, and may be shown to the sender."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")


class LengthRequired(Exception):
    """The delivery doesn't announce the length of its body."""


class BodyTooLong(Exception):
    """The delivery announces more than BODY_BYTES_MAX."""


class NotJson(InvalidDelivery):
    """The body is no JSON: it was damaged in transit."""


class NotAuthorized(Exception):
    """The delivery is not the bank's, or not meant for us. The message is only logged and quotes no input."""


class Setting(StrEnum):
    """Settings that can prevent deliveries from being stored."""

    ALLOWED_HOSTS = "ALLOWED_HOSTS"
    CREDENTIALS = "CREDENTIALS"  # none are set for an endpoint
    TRUSTED_PROXIES = "TRUSTED_PROXIES"


class Misconfigured(Exception):
    """A setting of ours prevents the delivery from being stored; a retry can succeed.

    `detail` says what the setting lacks.
    """

    def __init__(self, setting: Setting, detail: str) -> None:
        super().__init__(f"{setting}: {detail}")
        self.setting, self.detail = setting, detail


class Overloaded(Exception):
    """Too many deliveries wait to be stored; a retry can succeed."""


class NothingToDo(Exception):
    """No webhook or delivery is eligible for the operator action."""


class StaleConfirmation(Exception):
    """The rows changed after the confirmation page was rendered; nothing was written."""
