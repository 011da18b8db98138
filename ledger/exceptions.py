class MissingOrganizations(Exception):
    """Some organizations to be credited do not exist: create them outside the transaction and post again."""

    def __init__(self, inns: frozenset[str]) -> None:
        super().__init__(f"{len(inns)} organizations do not exist yet")
        self.inns = inns


class CorrectionRefused(Exception):
    """A correction that the state of the operation does not allow; nothing is written."""
