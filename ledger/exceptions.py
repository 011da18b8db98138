class MissingOrganizations(Exception):
    """Organizations to be credited don't exist yet; open them outside the transaction and post again."""

    def __init__(self, inns: frozenset[str]) -> None:
        super().__init__(f"{len(inns)} organizations are not open yet")
        self.inns = inns
