"""A seeded stream of attacks: the corpus in rotation, and randomly mutated requests."""

import random
from collections.abc import Iterator

from tests.fuzz.corpus import KINDS, WEBHOOK, Attack, poisoned, request

MUTATED = "bytes changed at random"
MUTATED_SHARE = 0.25
CHANGES_MAX = 8
TOKENS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"%00",
    b"%",
    b"/",
    b"..",
    b"\xff",
    b"\xc0\x80",
    b"{",
    b'"',
    b"\\",
]
TOKENS += [
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: x\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.0",
    b"9" * 400,
]


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """Yield `count` attacks, the same for the same seed."""
    rng = random.Random(seed)
    names = list(KINDS)
    for number in range(count):
        if rng.random() < MUTATED_SHARE:
            yield Attack(MUTATED, "any", (mutated(rng),))
            continue
        name = names[number % len(names)]
        endpoint, sent = KINDS[name](rng)
        yield Attack(name, endpoint, sent if isinstance(sent, tuple) else (sent,))


def mutated(rng: random.Random) -> bytes:
    """Return a request whose body is invalid in three fields, with a few random byte changes."""
    delivery = request("POST", WEBHOOK, poisoned(rng), b"Content-Type: application/json")
    read = request("GET", "/api/organizations/5555555555/balance/history/?limit=3&before=7")
    raw = bytearray(rng.choice([delivery, delivery, delivery, read]))
    for _ in range(rng.randint(1, CHANGES_MAX)):
        place = rng.randrange(len(raw) + 1)
        length = rng.randint(1, 30)
        match rng.randrange(5):
            case 0:
                raw[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del raw[place : place + length]
            case 2:
                raw[place:place] = rng.choice(TOKENS)
            case 3:
                raw[place:place] = raw[place : place + length] * rng.randint(1, 20)
            case _:
                if place < len(raw):
                    raw[place] ^= 1 << rng.randrange(8)
    return bytes(raw)
