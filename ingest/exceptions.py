class InvalidDelivery(Exception):
    """This delivery can never become valid; the message names the field and says what is wrong."""

    def __init__(self, field: str, wrong: str) -> None:
        super().__init__(f"{field}: {wrong}")
