class InvalidDelivery(Exception):
    """This delivery can never become valid; the message names the field and says what is wrong."""

    def __init__(self, field: str, wrong: str) -> None:
        super().__init__(f"{field}: {wrong}")


class NotJson(InvalidDelivery):
    """What came is no JSON: it was mangled on its way, and says nothing."""


class TurnedAway(Exception):
    """This delivery is not the bank's; the message is for our log, and quotes nothing of the delivery."""


class NoWebhooks(Exception):
    """There is no webhook, or none any more, that an act could be about."""
