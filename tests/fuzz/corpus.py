"""Attack requests, byte for byte, by kind. None of them may ever be credited.

A body is invalid in one field where that field is tested, and in three fields where bytes are mutated at
random, so that no mutation makes it valid. BAIT is the INN of bodies that would be valid if a request were
parsed otherwise than it is framed (request smuggling, pipelining behind a refused request).
"""

import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

BAIT = "5555555555"
VALID_INN = "7707083893"  # credited by the valid deliveries in between
WEBHOOK = "/api/webhook/bank/"
MARK = "h0stile"  # marks the hostile texts in the admin
TEXTS = [
    f"<script>{MARK}()</script>",
    f'"><img src=x onerror={MARK}()>',
    f"'><svg/onload={MARK}()>",
    f"javascript:{MARK}()",
    f"</pre></td><script>{MARK}()</script><!--",
    f"{{{{ {MARK} }}}}{{% debug %}}",
    f"'; DROP TABLE ledger_payment; -- {MARK}",
    f"' OR '1'='1' /* {MARK} */",
    f'" UNION SELECT password FROM auth_user -- {MARK}',
    f"\\'; UPDATE ledger_organization SET balance_kopecks = 0; # {MARK}",
    f"=HYPERLINK('{MARK}')",
    f"%s %(x)s %n {{0.__class__}} {MARK}",
    f"\u202e{MARK}\ufeff\u200b",
    f"\U0001f4b8\u0301 {MARK} &lt;b&gt; &#60;script&#62;",
]


@dataclass(frozen=True)
class Attack:
    kind: str
    endpoint: str
    pieces: tuple[bytes, ...]  # sent with a short pause in between

    @property
    def raw(self) -> bytes:
        return b"".join(self.pieces)


Make = Callable[[random.Random], tuple[str, bytes | tuple[bytes, ...]]]  # returns endpoint and request
KINDS: dict[str, Make] = {}


def kind(name: str) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        KINDS[name] = make
        return make

    return register


def request(
    method: str = "POST",
    path: str | bytes = WEBHOOK,
    body: bytes = b"",
    *headers: bytes,
    length: bool = True,
    end: bytes = b"\r\n",
) -> bytes:
    target = path if isinstance(path, bytes) else path.encode()
    lines = [method.encode() + b" " + target + b" HTTP/1.1", b"Host: localhost", *headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return end.join(lines) + end + end + body


def fields(rng: random.Random, **changed: Any) -> dict[str, Any]:
    valid = {
        "operation_id": str(UUID(int=rng.getrandbits(128))),
        "amount": 100,
        "payer_inn": BAIT,
        "document_number": "PAY-328",
        "document_date": "2024-04-27T21:00:00Z",
    }
    return valid | changed


def bait(rng: random.Random) -> bytes:
    """Return a valid body, to be hidden where it must not be parsed."""
    return json.dumps(fields(rng)).encode()


def poisoned(rng: random.Random) -> bytes:
    """Return JSON with three invalid fields, for random mutation."""
    return json.dumps(fields(rng, amount=-1, payer_inn="55", document_date="never")).encode()


def literal(rng: random.Random, name: str, value: str) -> bytes:
    """Return a valid body in which the JSON of one field is replaced by `value`, unescaped."""
    fields_json = {key: json.dumps(text) for key, text in fields(rng).items()} | {name: value}
    return ("{" + ", ".join(f'"{key}": {text}' for key, text in fields_json.items()) + "}").encode()


def one_field(name: str, make: Callable[[random.Random], str]) -> Make:
    return lambda rng: ("webhook", request("POST", WEBHOOK, literal(rng, name, make(rng))))


# Fields


def _amount(rng: random.Random) -> str:
    many = str(rng.randint(1, 9)) * rng.randint(20, 10_000)
    exponent = rng.randint(17, 10**9)
    fixed = [
        *("NaN", "Infinity", "-Infinity", "-0", "0", "0.00", "-1", "true", "false", "null", "[]", "{}", '""'),
        *(
            "1e-3",
            "0.001",
            "100.005",
            "01",
            "+1",
            "1.",
            ".5",
            "0x10",
            "1_000",
            "1e",
            "1e+",
            "--1",
            "1e99999999",
        ),
        *(
            '"1e2"',
            '"+1"',
            '"-1"',
            '" 1"',
            '"1 "',
            '"1,5"',
            '"NaN"',
            '"0x1"',
            '"1_0"',
            '"１００"',
            '"١٠٠"',
            '"𝟏"',
        ),
        *('"1\\u0000"', '"\\ud800"', "[100]", '{"a": 1}', "9999999999999.991", "10000000000000", "1" * 65),
    ]
    made = [
        many,
        f'"{many}"',
        f"1e{exponent}",
        f"1e-{exponent}",
        f"-{many}",
        f"0.{many}",
        f"{many}e-{len(many)}",
    ]
    return rng.choice(fixed + made)


def _date(rng: random.Random) -> str:
    number = rng.randint(10**6, 10**9)  # more digits than any part of a timestamp
    fixed = [
        *("", "never", "2024-02-30T00:00:00Z", "2023-02-29", "0000-01-01T00:00:00Z", "0999-12-31T00:00:00Z"),
        *(
            "9999-12-31T23:59:59-23:59",
            "10000-01-01T00:00:00Z",
            "2024-13-01",
            "2024-04-27T25:00:00Z",
            "2024-04-27T24:00:00Z",
            "2024-04-27T21.5Z",
            "2024-04-27T21:00+03:60",
            "now()",
        ),
        *(
            "2024-04-27T21:00:00+99:99",
            "2024-04-27 21:00:00 Europe/Moscow",
            "27.04.2024",
            "２０２４-04-27",
            "P1D",
        ),
        *("2024-04-27T21:00:00Z" * 400, "2024-W99-1", "1714251600", "-2024-04-27", "2024-04-27T21:00:60.9Z"),
    ]
    if rng.random() < 0.3:
        return rng.choice(["1714251600", "null", "true", "[]", "{}", "1e400", "NaN"])
    text = rng.choice(
        [*fixed, f"{number}-99-{number}", f"2024-04-27T{number}:00Z", f"2024-04-27T21:00:00+{number}"]
    )
    return json.dumps(text)


def _inn(rng: random.Random) -> str:
    digits = "".join(rng.choice("0123456789") for _ in range(10))
    foreign = "".join(chr(rng.choice([0x660, 0x6F0, 0x966, 0xFF10, 0x1D7CE]) + int(d)) for d in digits)
    made = [
        foreign,
        digits + "1",
        digits[:9],
        f"{digits}\n",
        f" {digits}",
        f"{digits}\0",
        digits[:9] + "О",
        digits * 900,
    ]
    return rng.choice(
        [*map(json.dumps, [*made, *TEXTS]), digits.replace("0", "1"), "null", "true", "[]", "{}"]
    )


def _operation_id(rng: random.Random) -> str:
    whole = str(UUID(int=rng.getrandbits(128)))
    made = [
        whole[:-1],
        whole + "0",
        whole.replace("-", "_"),
        f"{{{whole}",
        f"{whole}}}",
        whole + "\0",
        whole + "\n",
    ]
    made += [whole[:-1] + "г", "urn:uuid:", "uuid:" + whole, "0x" + whole, whole * 500, whole[:-1] + "٣", ""]
    return rng.choice([*map(json.dumps, [*made, *TEXTS]), "null", "1", "true", "[]", f'["{whole}"]'])


def _document_number(rng: random.Random) -> str:
    too_long = rng.choice(TEXTS) + "я" * rng.randint(256, 5000)
    made = ["", too_long, "PAY\x00328", "\0", "x" * 256]
    return rng.choice([*map(json.dumps, made), "null", "328", "true", "[]", "{}", '"\\ud800"', '"\\udfff x"'])


KINDS["numbers"] = one_field("amount", _amount)
KINDS["dates"] = one_field("document_date", _date)
KINDS["INNs, homoglyph digits"] = one_field("payer_inn", _inn)
KINDS["operation ids"] = one_field("operation_id", _operation_id)
KINDS["document numbers, NUL"] = one_field("document_number", _document_number)


# Bodies


HUGE = b"{" * 66_000


@kind("broken, deep and huge JSON")
def _json(rng: random.Random) -> tuple[str, bytes]:
    whole = bait(rng)
    deep = rng.choice([10, 100, 1000, 30_000])
    nested = rng.choice([b"[", b'{"a":']) * deep
    repeated = b'{"amount": 100, ' + whole[1:]
    body = rng.choice(
        [
            *(whole[: rng.randrange(len(whole))], whole + rng.choice([b"}", b",", b"\0", b"x", b"[]", whole])),
            *(whole.replace(b'"', b"'"), whole.replace(b":", b"=", 1), whole[:-1] + b",}", b"/**/" + whole),
            *(nested, nested + b"1", whole[:-1] + b', "x": ' + nested + b"}", b"[" + whole + b"]"),
            *(repeated, repeated.replace(b'"amount": 100', b'"\\u0061mount": 100'), whole[:-1] + b', "x": 1, "x": 2}'),
            *(b"", b" ", b"null", b"1", b'"x"', b"{}", b"[]", b"true", b"{,}", b'{"":}', b"\xff", b"NaN"),
            *(whole[:-1] + b', "x": "' + b"a" * rng.choice([65_536, 70_000, 140_000]) + b'"}', HUGE),
            whole.replace(b"PAY", rng.choice([b"\n", b"\t", b"\x01", b"\\x41", b"\\u12", b"\\ud800\\u0041", b"\\"])),
        ]
    )  # fmt: skip
    return "webhook", request("POST", WEBHOOK, body)


@kind("other banks, without credentials")
def _other_banks(rng: random.Random) -> tuple[str, bytes]:
    """Bodies that the adapters would credit, ignore or record if they carried the bank's credentials."""
    event = {
        "operationStatus": "Transaction",
        "typeOfOperation": rng.choice(["Credit", "Сredit", "Debit", None, 1]),
        "operationCurrencyDigitalCode": rng.choice(["643", "840", 810, "₽"]),
        "accountCurrencyDigitalCode": "643",
        "accountNumber": "40702810110011000430",
        "accountAmount": 100,
        "docDate": "2024-04-27T21:00:00Z",
        "documentNumber": "328",
        "operationId": str(UUID(int=rng.getrandbits(128))),
        "payer": rng.choice([{"inn": BAIT, "acct": ""}, {"inn": "12345", "acct": ""}, None]),
        "webhookType": rng.choice(["incomingPayment", "inсomingPayment", "unheard-of"]),
        "customerCode": rng.choice(["300123123", None]),
    }
    body = json.dumps(event).encode()
    parts = [json.dumps({"alg": alg}).encode() for alg in ("none", "HS256", "RS256")]
    token = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (rng.choice(parts), body, b"x"))
    shown = [
        b"X: y",
        b"Authorization: Bearer guessed",
        b"Authorization: Basic YTpi",
        b"Authorization:",
    ]
    path, sent = rng.choice(
        [("/api/webhook/tbank/", body), ("/api/webhook/tochka/", body), ("/api/webhook/tochka/", token)]
    )
    return "webhook", request("POST", path, sent, rng.choice(shown))


@kind("encodings")
def _encodings(rng: random.Random) -> tuple[str, bytes]:
    text = bait(rng).decode()
    overlong = [
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xc0\x80",
        b"\xf0\x80\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf5\x80\x80\x80",
        b"\xfe",
    ]
    encoded = [
        text.encode(name)
        for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "utf-8-sig", "cp037")
    ]
    encoded = [body for body in encoded if body != text.encode()]
    broken = text.encode().replace(
        b"PAY", rng.choice([*overlong, b"\x80", b"\xe2\x82", "П".encode("cp1251")])
    )
    content_type = rng.choice(
        [b"application/json; charset=utf-16", b"text/plain", b"application/xml", b"x" * 300, b"\xff"]
    )
    return "webhook", request(
        "POST", WEBHOOK, rng.choice([*encoded, broken, broken]), b"Content-Type: " + content_type
    )


@kind("chunked bodies")
def _chunked(rng: random.Random) -> tuple[str, bytes]:
    body = bait(rng)
    size = rng.choice(
        [b"%x", b"0x%x", b"+%x", b"-%x", b"%x ;a=b", b"%x;" + b"a" * 9000, b"00000000000000%x", b"%x\0"]
    )
    size = size % len(body) if b"%x" in size else size
    last = rng.choice(
        [
            b"0\r\n\r\n",
            b"0\r\n",
            b"",
            b"0\r\nX: y\r\n\r\n",
            b"0\r\nContent-Length: 5\r\n\r\n",
            b"ffffffffffffffff\r\n",
        ]
    )
    sent = size + b"\r\n" + body + rng.choice([b"\r\n", b"", b"\n"]) + last
    return "webhook", request("POST", WEBHOOK, sent, b"Transfer-Encoding: chunked", length=False)


@kind("truncated bodies")
def _truncated(rng: random.Random) -> tuple[str, bytes]:
    body = bait(rng)
    whole = request(
        "POST",
        WEBHOOK,
        body,
        b"Content-Length: %d" % (len(body) + rng.choice([1, 2, 100, 60_000])),
        length=False,
    )
    return "webhook", rng.choice([whole, whole[: rng.randrange(20, len(whole))]])


@kind("slow bodies")
def _slow(rng: random.Random) -> tuple[str, tuple[bytes, ...]]:
    whole = request("POST", WEBHOOK, poisoned(rng))
    cuts = sorted(rng.sample(range(1, len(whole)), 3))
    return "webhook", tuple(whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True))


# Requests


def _poisoned_with(rng: random.Random, *headers: bytes, length: bool = True) -> bytes:
    return request("POST", WEBHOOK, poisoned(rng), *headers, length=length)


GIANT = [(b"X: " + b"a" * size,) for size in (8000, 9000, 40_000, 100_000)]
MANY = [tuple(b"X-%d: y" % number for number in range(count)) for count in (90, 101, 1500)]
ODD_HEADERS: list[tuple[bytes, ...]] = [
    *GIANT,
    *MANY,
    (b"Cookie: " + b"a=b; " * 1500,),
    (b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", b"Connection: Upgrade, HTTP2-Settings"),
    (b"Connection: close, keep-alive, Content-Length, Host",),
    *(
        (name + b": " + value,)
        for name in (b"SCRIPT_NAME", b"PATH_INFO", b"Script-Name")
        for value in (b"/x", b"/api", b"/healthz")
    ),
    (b"X-Forwarded-Proto: https", b"X-Forwarded-Ssl: off"),
    *((b"Expect: " + one,) for one in (b"100-continue", b"200-ok", b"", b"100-Continue, x")),
    *((b"X: a" + one + b"b",) for one in (b"\0", b"\r", b"\n", b"\x7f", b"\xff", b"\x1b[2J")),
    *((one,) for one in (b"X: a\r\n folded", b" X: y", b"X : y", b": y", b"X", b"X\0Y: z", b"X_Y: z")),
    *((b"Host: " + one,) for one in (b"localhost", b"evil.example", b"")),
    *((b"X-Forwarded-Host: " + one,) for one in (b"evil.example", b"a\tb")),
]
ODD_HOSTS = [b"evil.example", b"", b"a b", b"[::", b"\xff", b"localhost:99999999", b"localhost@evil"]


@kind("headers")
def _headers(rng: random.Random) -> tuple[str, bytes]:
    return "webhook", _poisoned_with(rng, *rng.choice(ODD_HEADERS))


@kind("Content-Length: bad, or twice")
def _lengths(rng: random.Random) -> tuple[str, bytes]:
    size = len(poisoned(rng))
    odd = [
        b"+%d" % size,
        b"-1",
        b"abc",
        b"0x10",
        b"1" * 5000,
        b"",
        b"1e3",
        b"\xb2",
        b"9" * 20,
        b"0" * 19 + b"%d" % size,
        b"0" * 4400 + b"%d" % size,
        b"0" * 7000,
        b" %d x" % size,
    ]
    length = rng.choice([*odd, b"%d, %d" % (size, size), b"%d.0" % size])
    return "webhook", _poisoned_with(rng, b"Content-Length: " + length, length=rng.random() < 0.3)


@kind("Host: strange, or none")
def _hosts(rng: random.Random) -> tuple[str, bytes]:
    host = rng.choice([b"Host: " + one + b"\r\n" for one in ODD_HOSTS] + [b""])
    return "webhook", _poisoned_with(rng).replace(b"Host: localhost\r\n", host)


@kind("methods")
def _methods(rng: random.Random) -> tuple[str, bytes]:
    path = rng.choice(
        [WEBHOOK, "/api/organizations/5555555555/balance/", "/api/operations/x/", "/healthz", "/readyz", "*"]
    )
    odd = [
        "PUT",
        "DELETE",
        "PATCH",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "PROPFIND",
        "post",
        "Post",
        "GET\t",
        "",
        "P" * 300,
        "PO\0ST",
    ]
    odd += ["POST ", "M-SEARCH", "\xff", "PRI", "HEAD", "GET,POST", "_", "ПОСТ", "G#T"]
    method = rng.choice(odd)
    return "any", request(method, path, poisoned(rng), b"X-HTTP-Method-Override: POST")


@kind("paths")
def _paths(rng: random.Random) -> tuple[str, bytes]:
    inn = rng.choice(
        [
            "5555555555",
            "%35555555555",
            "5555555555%00",
            "..",
            "%2e%2e",
            "5" * 3000,
            "%ff%fe",
            "%u0035",
            "１２３",
        ]
    )
    fixed = [
        *("/api/../admin/", "/api/%2e%2e/admin/", "//api/webhook/bank/", "/api//webhook/bank/", "/api/webhook/bank", "/api"),
        *("/api/webhook/bank/%00", "/api/%ff", "/api/%", "/api/%zz", "/api/" + "a/" * 3000, "/api/" + "%41" * 2500, "api/x"),
        *("/api/webhook/bank/;x=y", "/api/webhook/bank/#x", "/API/webhook/bank/", "/api/webhook/bank/../bank/", "http://evil/api/"),
        *("/api/webhook/%62ank/", "/api\\webhook\\bank\\", "/api/\x01", "/api/ x", "\\", "", "?", "/api/.env", "/api/%c0%ae%c0%ae/"),
        *("/static/../config/settings.py", "/static/%2e%2e/%2e%2e/etc/passwd", "/static/%00", "/.git/config", "/wp-login.php"),
        *(f"/api/organizations/{inn}/balance/", f"/api/operations/{inn}/", f"/api/organizations/{inn}/balance/history/"),
        *(f"/api/organizations/{json.dumps(text)[1:-1]}/balance/" for text in rng.sample(TEXTS, 3)),
        *(f"/api/operations/{json.dumps(text)[1:-1].replace(' ', '%20')}/" for text in rng.sample(TEXTS, 3)),
    ]  # fmt: skip
    path = rng.choice([one.encode() for one in fixed] + ["/api/счёт/".encode(), b"/api/\xff\xfe", b"/api/\0"])
    return "any", request(rng.choice(["GET", "GET", "HEAD", "POST"]), path, poisoned(rng))


@kind("queries")
def _queries(rng: random.Random) -> tuple[str, bytes]:
    value = rng.choice(
        [
            "0",
            "-1",
            "1e3",
            "9" * 4000,
            "%00",
            "1;DROP",
            "NaN",
            "%D9%A1",
            "true",
            "",
            "+1",
            "%20",
            "1.5",
            "%ff",
            "1&limit=-1",
        ]
        + ["'%20OR%201=1--", "%3Cscript%3E", "[]", "%", "%zz", "x" * 5000, "&" * 2000, "a=b&" * 1500]
    )
    name = rng.choice(
        ["limit", "before", "after", "at", "cursor", "limit[]", "%6cimit", "format", "callback", "next"]
    )
    path = rng.choice(
        ["/api/organizations/5555555555/balance/", "/api/organizations/5555555555/balance/history/"]
    )
    return "read", request("GET", f"{path}?{name}={value}")


@kind("admin and its login")
def _admin(rng: random.Random) -> tuple[str, bytes]:
    text = rng.choice([*TEXTS, "\0", "a" * 10_000, "%00", "-1", "9" * 400])
    quoted = "".join(f"%{byte:02x}" for byte in text.encode())
    token = b"a" * 32
    # An empty password: the form is validated without the cost of hashing.
    form = b"csrfmiddlewaretoken=%s&username=%s&password=&next=//evil.example" % (token, quoted.encode())
    made = [
        request("POST", "/admin/login/", form, b"Content-Type: application/x-www-form-urlencoded"),
        request("POST", "/admin/login/", form, b"Content-Type: application/x-www-form-urlencoded", b"Cookie: csrftoken=" + token),
        request("GET", f"/admin/login/?next={quoted}"[:8000]),
        request("GET", f"/admin/ingest/webhook/?q={quoted}&p={quoted}&status__exact={quoted}"[:8000]),
        request("GET", f"/admin/ingest/webhook/{quoted}/change/"[:8000]),
        request("GET", "/admin/", b"", b"Cookie: sessionid=" + quoted.encode()),
        request("POST", "/admin/login/", b"--x\r\nbroken", b"Content-Type: multipart/form-data; boundary=x"),
        request("POST", "/admin/login/", b"x" * 1000, b"Content-Type: multipart/form-data; boundary=" + b"y" * 300),
        request("POST", "/admin/login/", b"a&" * 5000, b"Content-Type: application/x-www-form-urlencoded", b"Cookie: csrftoken=" + token),
        request("POST", "/admin/login/", b"{}", b"Content-Length: 5000000", length=False),
    ]  # fmt: skip
    return "admin", rng.choice(made)


# Connections


@kind("request smuggling")
def _smuggling(rng: random.Random) -> tuple[str, bytes]:
    hidden = request("POST", WEBHOOK, bait(rng))
    obfuscated = rng.choice(
        [b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding:\x0bchunked", b"Transfer_Encoding: chunked"]
        + [b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", b"Transfer-Encoding: identity, chunked", b"X: y\nTransfer-Encoding: chunked"]
        + [b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: gzip, chunked", b"X: y\rTransfer-Encoding: chunked"]
        + [b"Transfer-Encoding:\r\n chunked", b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: chunked;q=1", b"\0Transfer-Encoding: chunked"]
    )  # fmt: skip
    plain = b"Transfer-Encoding: chunked"
    inside = b"0\r\n\r\n" + hidden
    one_chunk = b"%x\r\n" % len(hidden) + hidden + b"\r\n0\r\n\r\n"
    made = [
        request("POST", WEBHOOK, inside, plain),  # CL.TE
        request("POST", WEBHOOK, inside, obfuscated),
        request("POST", WEBHOOK, one_chunk, plain, b"Content-Length: 4", length=False),  # TE.CL
        request("POST", WEBHOOK, one_chunk, obfuscated, b"Content-Length: %d" % len(one_chunk), length=False),
        request("POST", WEBHOOK, one_chunk, plain, obfuscated, length=False),  # TE.TE
        request("POST", WEBHOOK, hidden, b"Content-Length: 0"),
        request("GET", "/healthz", hidden),  # an unexpected body
        request("POST", WEBHOOK, hidden, b"Content-Length: %d, 0" % len(hidden), length=False),
    ]
    return "webhook", rng.choice(made)


@kind("line ends: bare LF, bare CR")
def _line_ends(rng: random.Random) -> tuple[str, bytes]:
    end = rng.choice([b"\n", b"\r", b"\r\r\n", b"\n\r"])
    whole = request("POST", WEBHOOK, bait(rng), end=end)
    mixed = request("POST", WEBHOOK, bait(rng)).replace(b"\r\n", end, 1)
    return "webhook", rng.choice([whole, mixed, b"\r\n\r\n\r\n" + whole])


@kind("pipelining")
def _pipelining(rng: random.Random) -> tuple[str, bytes]:
    many = b"".join(_poisoned_with(rng) for _ in range(rng.randint(2, 6)))
    reads = request("GET", "/healthz") * rng.randint(1, 9)
    # After a malformed request nothing more is parsed: its end is unknown.
    refused = rng.choice(
        [b"GET / HTTQ/1.1\r\n\r\n", request("POST", WEBHOOK, b"x", b"Content-Length: y", length=False)]
    )
    return "any", rng.choice([many, reads + many, reads + refused + request("POST", WEBHOOK, bait(rng))])


@kind("not HTTP")
def _noise(rng: random.Random) -> tuple[str, bytes]:
    fixed = [
        *(
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"*1\r\n$4\r\nPING\r\n",
        ),
        *(
            b"SSH-2.0-x\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/0.9\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"\r\n" * 1000,
            b"\0" * 5000,
        ),
        *(
            b"GET /healthz HTTP/1.1 x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\nGET / HTTP/1.1\r\n\r\n",
        ),
        *(b"GET " + b"/" * 9000, b"x" * 70_000, b"\r\n\r\n" * 3),
    ]
    return "any", rng.choice([*fixed, rng.randbytes(rng.randint(1, 3000)), rng.randbytes(20) + b"\r\n\r\n"])
