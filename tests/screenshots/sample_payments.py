"""Payments for the screenshots; needs no Django, so that it also works outside the stack."""

import math
import random
from datetime import datetime
from uuid import UUID

from ledger.terms import PaymentTerms

PASSWORD = "a long password"  # of all users
ROMASHKA, VASILEK = "7707083893", "7719617469"
SUSPENSE = "@40702810000000000002"
INNS = [ROMASHKA, VASILEK, "500100732259", "7736050003", "7702070139", "7744001497", "7708503727"]
WEIGHTS = [30, 18, 4, 12, 9, 7, 5]


def payment(rng: random.Random, day: datetime) -> PaymentTerms:
    kopecks = round(math.exp(rng.gauss(9.5, 1.3))) * 100 + rng.choice([0, 0, 0, 50, 99])
    (inn,) = rng.choices(INNS, WEIGHTS)
    operation_id = UUID(int=rng.getrandbits(128), version=4)
    return PaymentTerms(operation_id, inn, kopecks, f"{rng.randint(100, 9999)}", day)
