"""The statements of a scenario: their files, what the bank notifies of them, and what must come of it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from uuid import UUID

from tests.harness.bank_client import INNS, BankDelivery, DeliveredTerms, make_delivery
from tests.statements.files import OWN, PAYER, document, section, statement

DAY = "16.03.2026"
NOTIFIED_AT = "2026-03-16T09:00:00Z"
FIRST_DAY, LAST_DAY = "2026-03-01", "2026-03-31"
UNPROVEN, BROKEN = "40702810900000000002", "40702810900000000003"  # further accounts of ours
ACCOUNTS = (OWN, UNPROVEN, BROKEN)
OURSELVES = "0011001101"
NOTIFIED, PERSONS = 10, 3  # lines with a webhook before the upload; of payers without an INN
TWINS_EVERY = 50  # lines, of which one is there twice
LATE_SHARE = 10  # of the lines, that the bank notifies after the upload


@dataclass(frozen=True)
class Line:
    """A credit of DAY. `inn` is empty if the payer is a person."""

    inn: str
    number: int
    kopecks: int

    def document(self, account: str = OWN) -> str:
        fields = {"Номер": str(self.number), "Дата": DAY, "ДатаПоступило": DAY, "ПолучательСчет": account}
        return document(**fields, ПлательщикИНН=self.inn, Сумма=rubles(self.kopecks))

    def delivery(self, rng: Random, more_kopecks: int = 0) -> BankDelivery:
        """Return the bank's webhook of this payment, whose number has the same digits."""
        operation_id = UUID(int=rng.getrandbits(128), version=4)
        terms = DeliveredTerms(operation_id, self.inn, self.kopecks + more_kopecks, f"PAY-{self.number}")
        return make_delivery(terms, document_date=NOTIFIED_AT)


class StatementPlan:
    """`lines` payments that the bank has not notified, and one or some of every other kind.

    `before` are the webhooks before the upload, `late` those after it. All is determined by `rng`.
    """

    def __init__(self, rng: Random, lines: int) -> None:
        numbers = iter(range(1, lines + 100))

        def some(count: int, inns: Sequence[str] = INNS) -> list[Line]:
            return [
                Line(rng.choice(inns), number, 100_00 + 7 * number)
                for number, _ in zip(numbers, range(count), strict=False)
            ]

        silent = some(lines - lines // TWINS_EVERY)
        self.silent = silent + silent[: lines // TWINS_EVERY]
        self.notified, self.persons = some(NOTIFIED), some(PERSONS, [""])
        (self.differing,), (self.unproven,), (self.own_money,) = some(1), some(1), some(1, [OURSELVES])
        once = silent[lines // TWINS_EVERY :]
        self.late = [line.delivery(rng) for line in rng.sample(once, lines // LATE_SHARE)]
        self.before = [line.delivery(rng) for line in self.notified]
        self.before.append(self.differing.delivery(rng, more_kopecks=1))

    @property
    def matched(self) -> list[Line]:
        """The lines that agree with a payment in the end."""
        return [*self.silent, *self.notified, *self.persons]

    @property
    def line_count(self) -> int:
        return sum(count for count, _ in self.buckets().values())

    def credited(self) -> Counter[tuple[str, int]]:
        """Return how often each amount must be in the ledger in the end, by organization and kopecks."""
        posted = Counter((line.inn or f"@{OWN}", line.kopecks) for line in self.matched)
        posted[self.differing.inn, self.differing.kopecks + 1] += 1
        return posted

    def buckets(self) -> dict[str, tuple[int, int]]:
        """Return the number of lines and the kopecks of each bucket that must not be empty in the end."""
        return {
            "matched": (len(self.matched), total(self.matched)),
            "amount_mismatch": (1, self.differing.kopecks),
            "missing_webhook": (1, self.unproven.kopecks),
            "excluded": (2, self.own_money.kopecks),  # with what we paid
        }

    def files(self) -> Iterator[bytes]:
        """Yield one file twice and another one with the same lines, an unproven one, and two that break."""
        first, second = (self._file(written_at) for written_at in ("09:00:00", "10:00:00"))
        yield from (first, second, first)
        wrong = balances(UNPROVEN, DAY, came_in=self.unproven.kopecks + 1)
        yield file(UNPROVEN, wrong, self.unproven.document(UNPROVEN))
        for day, opening in (("10.03.2026", 5_00), ("11.03.2026", 6_00)):
            yield file(BROKEN, balances(BROKEN, day, opening=opening))

    def _file(self, written_at: str) -> bytes:
        credits_ = [*self.matched, self.differing, self.own_money]
        paid = document(
            Номер="1",
            Дата=DAY,
            ПлательщикСчет=OWN,
            ПолучательСчет=PAYER,
            ПлательщикИНН=OURSELVES,
            ПолучательИНН=INNS[0],
            ДатаПоступило="",
            ДатаСписано=DAY,
        )
        sums = balances(OWN, DAY, opening=1_000_00, came_in=total(credits_), went_out=10_00)
        return file(OWN, sums, *(line.document() for line in credits_), paid, ВремяСоздания=written_at)


def total(lines: Sequence[Line]) -> int:
    return sum(line.kopecks for line in lines)


def rubles(kopecks: int) -> str:
    return f"{kopecks // 100}.{kopecks % 100:02}"


def balances(account: str, day: str, opening: int = 0, came_in: int = 0, went_out: int = 0) -> str:
    return section(
        РасчСчет=account,
        ДатаНачала=day,
        ДатаКонца=day,
        НачальныйОстаток=rubles(opening),
        ВсегоПоступило=rubles(came_in),
        ВсегоСписано=rubles(went_out),
        КонечныйОстаток=rubles(opening + came_in - went_out),
    )


def file(account: str, *blocks: str, **fields: str) -> bytes:
    return statement(*blocks, РасчСчет=account, ДатаСоздания="18.03.2026", **fields).encode("cp1251")
