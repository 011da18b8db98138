from enum import StrEnum


class InvalidDelivery(Exception):
    """This delivery can never become valid; the message names the field and says what is wrong."""

    def __init__(self, field: str, wrong: str) -> None:
        super().__init__(f"{field}: {wrong}")


class NotJson(InvalidDelivery):
    """What came is no JSON: it was mangled on its way, and says nothing."""


class NotAuthorized(Exception):
    """This delivery is not the bank's; the message is for our log, and quotes nothing of the delivery."""


class Setting(StrEnum):
    """What can keep deliveries from being taken in."""

    ALLOWED_HOSTS = "ALLOWED_HOSTS"
    CREDENTIALS = "CREDENTIALS"  # none are set for an endpoint
    TRUSTED_PROXIES = "TRUSTED_PROXIES"


class Misconfigured(Exception):
    """A setting of ours keeps this delivery from being taken in; the same delivery can succeed later.

    `detail` says what the setting lacks.
    """

    def __init__(self, setting: Setting, detail: str) -> None:
        super().__init__(f"{setting}: {detail}")
        self.setting, self.detail = setting, detail


class NothingToDo(Exception):
    """There is no webhook, or none any more, that an act could be about."""


class StaleConfirmation(Exception):
    """What an act would move is no longer what its confirmation page showed; nothing has been written."""
