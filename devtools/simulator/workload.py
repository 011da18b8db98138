"""The workload: what the simulated bank delivers, and in which order."""

import json
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Literal

from ingest.field_rules import AMOUNT_KOPECKS_MAX
from ledger.inn import is_checksum_valid


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The seed determines everything in the deliveries except operation ids and INNs, which are always new.

    `count` is the number of operations; the shares of it are added as duplicates, conflicts and invalid
    bodies. `rate` is in deliveries per second, 0 for unlimited. With a signing key each delivery is signed.
    """

    url: str
    count: int = 1000
    organizations: int = 10
    rate: float = 0.0
    duplicates_share: float = 0.0
    conflicts_share: float = 0.0
    invalid_share: float = 0.0
    seed: int = field(default_factory=lambda: secrets.randbelow(2**32))
    connections: int = 8
    timeout_seconds: float = 60.0
    signing_key: bytes | None = field(default=None, repr=False)
    api_key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Operation:
    """`fields` are those of its webhook, each value as JSON text."""

    operation_id: str
    inn: str
    amount_kopecks: int
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PlannedDelivery:
    """One POST request. An invalid one has an operation id that must never be stored."""

    kind: Literal["first", "duplicate", "conflict", "invalid"]
    operation: Operation
    body: bytes

    def __str__(self) -> str:
        return f"{self.kind} delivery {self.body!r:.200}"


def build_workload(plan: Plan) -> list[PlannedDelivery]:
    """Return the deliveries in sending order; redeliveries follow the first delivery of their operation.

    Half of them follow it closely, so that both are in flight together.
    """
    random = Random(plan.seed)
    inns = _new_inns(min(plan.organizations, plan.count))
    payers = [inns[index % len(inns)] for index in range(plan.count)]
    random.shuffle(payers)
    operations = [_operation(random, inn) for inn in payers]
    slots = [
        (index, PlannedDelivery("first", each, _json(each.fields))) for index, each in enumerate(operations)
    ]
    shares = (plan.duplicates_share, plan.conflicts_share, plan.invalid_share)
    for share, make in zip(shares, (_duplicate, _conflict, _invalid), strict=True):
        for _ in range(round(plan.count * share)):
            index = random.randrange(plan.count)
            slot = random.choice((index + random.randrange(4), random.randrange(index, plan.count)))
            slots.append((slot, make(random, operations[index], random.choice(inns))))
    slots.sort(key=lambda slot: slot[0])  # stable
    return [delivery for _, delivery in slots]


def _new_inns(count: int) -> list[str]:
    """Return distinct INNs with valid check digits, alternately of companies and persons."""
    inns: dict[str, None] = {}
    while len(inns) < count:
        digits = 12 if len(inns) % 2 else 10
        candidate = f"{secrets.randbelow(10**digits):0{digits}}"
        if is_checksum_valid(candidate):
            inns[candidate] = None
    return list(inns)


def _operation(random: Random, inn: str) -> Operation:
    operation_id = str(uuid.uuid4())
    whole, odd = random.randrange(1, 10_000) * 100, random.randrange(1, 100_000_000)
    huge = random.randrange(AMOUNT_KOPECKS_MAX // 10, AMOUNT_KOPECKS_MAX)  # a float would lose its kopecks
    kopecks = random.choices((whole, odd, huge), weights=(50, 49, 1))[0]
    fields = {
        "operation_id": f'"{operation_id}"',
        "amount": spellings(kopecks)[0],
        "payer_inn": f'"{inn}"',
        "document_number": f'"PAY-{random.randrange(100_000)}"',
        "document_date": f'"2024-04-27T21:00:{random.randrange(60):02}Z"',
    }
    return Operation(operation_id, inn, kopecks, fields)


def _duplicate(random: Random, operation: Operation, _inn: str) -> PlannedDelivery:
    """Repeat the content, half of the time in another spelling."""
    if random.random() < 0.5:
        return PlannedDelivery("duplicate", operation, _json(operation.fields))
    fields = dict(random.sample(list(operation.fields.items()), len(operation.fields)))
    fields["amount"] = random.choice(spellings(operation.amount_kopecks))
    fields["operation_id"] = fields["operation_id"].upper().replace("-", random.choice(("-", "")))
    fields["document_date"] = fields["document_date"].replace("Z", "+00:00")
    body = _json(fields, comma=random.choice((",", " ,\r\n\t")))
    return PlannedDelivery("duplicate", operation, body)


def _conflict(random: Random, operation: Operation, inn: str) -> PlannedDelivery:
    """Change the organization or the amount."""
    changed = {"amount": format_rubles(operation.amount_kopecks + 1)}
    if inn != operation.inn and random.random() < 0.5:
        changed = {"payer_inn": f'"{inn}"'}
    return PlannedDelivery("conflict", operation, _json({**operation.fields, **changed}))


def _invalid(random: Random, _known: Operation, inn: str) -> PlannedDelivery:
    operation = _operation(random, inn)
    return PlannedDelivery("invalid", operation, random.choice(invalid_bodies(operation.fields)))


def _json(fields: Mapping[str, str], comma: str = ", ") -> bytes:
    return ("{" + comma.join(f'"{name}": {value}' for name, value in fields.items()) + "}").encode()


def format_rubles(kopecks: int) -> str:
    return str(Decimal(kopecks).scaleb(-2))


def spellings(kopecks: int) -> tuple[str, ...]:
    """Return JSON texts of an amount in rubles, plainest first: 100, 100.00, both quoted, 1E+2, 10000e-2."""
    exact = format_rubles(kopecks)
    plain = exact.removesuffix(".00")
    return (plain, exact, f'"{plain}"', f'"{exact}"', str(Decimal(exact).normalize()), f"{kopecks}e-2")


INVALID_VALUES = {
    "operation_id": ("null", "328", '"not-a-uuid"'),
    "amount": (
        *("null", "true", "0", "-100", "0.001", "10000000000000", "1e1000000", "NaN", "Infinity"),
        *('""', '"1_000"', '"1.2.3"', '"\\uff11\\uff10"'),
    ),
    "payer_inn": ("1234567890", '"123456789"', '"12345678901"', '"1234567890123"', '"12345\\uff167890"'),
    "document_number": ('""', '"PAY\\u0000328"', json.dumps("9" * 256)),
    "document_date": ("1714251600", '"yesterday"', '"2024-02-30T21:00:00Z"'),
}
"""JSON texts of invalid values, by field."""


def invalid_bodies(fields: Mapping[str, str]) -> list[bytes]:
    """Return bodies of these fields, each with one error."""
    valid = _json(fields)
    return [
        *(_json({**fields, name: value}) for name, values in INVALID_VALUES.items() for value in values),
        *(_json({other: fields[other] for other in fields if other != name}) for name in fields),
        *(b"", b"hello", valid[:-1], valid + valid, b"[" + valid + b"]", b"[" * 10_000 + b"]" * 10_000),
        *(valid.replace(b"PAY", b"\xff\xfe"), valid.decode().encode("utf-16")),
    ]
