"""Response bodies of the upload of bank statements; the OpenAPI document is generated from them."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

Amount = Annotated[int | None, Meta(description="In hundredths of the account's currency; null if missing")]
LineNumber = Annotated[int, Meta(description="The line of the file, from 1")]


class StatementWarning(Struct):
    """What is odd in the file and refuses nothing."""

    code: str
    line: int | None
    reason: str


class StatementAccount(Struct):
    """The balances and turnovers of an account in one section of the file, and whether they are proven."""

    account: str
    opening: Amount
    credited: Amount = field(name="in")
    debited: Amount = field(name="out")
    closing: Amount
    proof: Literal["holds", "fails", "unprovable"]


class ImportedStatement(Struct):
    id: int
    verdict: Literal["ok", "unproven", "partial"]
    warnings: list[StatementWarning]
    accounts: list[StatementAccount]
    lines: int
    new_lines: int
    known_lines: int
    withdrawn_lines: int


class RefusedStatement(Struct):
    """Why nothing of the file is taken, and in which line."""

    error: str
    line: LineNumber | UnsetType = UNSET
