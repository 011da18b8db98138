"""A bank's JSON object, field by field.

What can't be read raises InvalidDelivery, which says why: the delivery is then unrecognized, not refused.
Only what is no JSON at all raises NotJson.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from ingest import field_rules
from ingest.exceptions import InvalidDelivery, NotJson
from ingest.field_rules import FIELD_CHARS_SHOWN
from ledger.inn import is_inn

KIO_CHARS = 5  # of a foreign organization, in the payer's INN (field 60) of its payment orders
WHOLE_NUMBER_CHARS_MAX = 64


class JsonNumber(str):
    """A JSON number, digit by digit as it was written."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class JsonObject:
    """A JSON object. Each method takes the bank's name of a field and raises InvalidDelivery."""

    fields: Mapping[str, Any]
    repeated: tuple[str, ...] = ()  # names that stand twice in one object, at any depth
    inside: str = ""  # what the names of complaints begin with

    def named(self, name: str) -> str:
        return f"{self.inside}{name}"

    def require_unique(self) -> None:
        """Which of two equal fields is meant, nothing says."""
        for name in self.repeated:
            raise InvalidDelivery(name[:FIELD_CHARS_SHOWN], "is given twice")

    def part(self, name: str) -> "JsonObject":
        """The object in this field."""
        value = self._given(name)
        if not isinstance(value, Mapping):
            self._mistyped(name, value, "an object")
        return JsonObject(value, inside=f"{self.named(name)}.")

    def text(self, name: str) -> str:
        value = self._given(name)
        if not isinstance(value, str) or isinstance(value, JsonNumber):
            self._mistyped(name, value, "a string")
        return self._encodable(name, value)

    def written(self, name: str) -> str:
        """A string, or a whole number as it is written: banks' systems differ in that."""
        value = self._given(name)
        if isinstance(value, JsonNumber):
            if not value.isdecimal() or len(value) > WHOLE_NUMBER_CHARS_MAX:
                self._mistyped(name, value, "a string or a whole number")
            return str(value)
        return self.text(name)

    def kopecks(self, name: str) -> int:
        value = self._given(name)
        if not isinstance(value, str):
            self._mistyped(name, value, "a number or a string")
        self._encodable(name, value)
        raw = value.encode() if isinstance(value, JsonNumber) else msgspec.json.encode(str(value))
        return field_rules.amount_kopecks(raw, self.named(name))

    def inn(self, name: str) -> str:
        """An INN that can be credited."""
        value = self.fields.get(name)
        text = value.strip() if isinstance(value, str) else value
        if text is None or (isinstance(text, str) and not text.strip("0")):
            raise InvalidDelivery(self.named(name), "names no INN, so there is no balance to credit")
        if not isinstance(value, str) or isinstance(value, JsonNumber):
            self._mistyped(name, value, "a string of 10 or 12 digits")
        if is_inn(value):
            return value
        if len(value) == KIO_CHARS and value.isdecimal():
            raise InvalidDelivery(
                self.named(name),
                "is the 5-digit code (KIO) of a foreign organization, which has no INN to credit",
            )
        raise InvalidDelivery(self.named(name), "is no INN: it must have exactly 10 or 12 digits")

    def _given(self, name: str) -> Any:
        if name not in self.fields:
            raise InvalidDelivery(self.named(name), "is missing")
        return self.fields[name]

    def _encodable(self, name: str, text: str) -> str:
        """JSON can escape half of a surrogate pair, which no database holds."""
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidDelivery(self.named(name), "must be valid Unicode") from None
        return text

    def _mistyped(self, name: str, value: object, wanted: str) -> NoReturn:
        raise InvalidDelivery(self.named(name), f"must be {wanted}, got {_kind(value)}")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, JsonNumber):
        return "a number"
    return {bool: "true or false", str: "a string", list: "an array"}.get(type(value), "an object")


def parse_json_object(body: bytes) -> JsonObject:
    """Return the object in `body`. Raises NotJson, or InvalidDelivery for other JSON than an object."""
    repeated: list[str] = []

    def gathered(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, each in pairs:
            if name in found:
                repeated.append(name.encode(errors="replace").decode())
            found[name] = each
        return found

    try:
        value = json.loads(
            body.decode("utf-8-sig"),
            object_pairs_hook=gathered,
            parse_int=JsonNumber,
            parse_float=JsonNumber,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError:
        raise NotJson("body", "must be UTF-8") from None
    except ValueError:
        raise NotJson("body", "must be valid JSON") from None
    except RecursionError:
        raise InvalidDelivery("body", "is nested too deeply") from None
    if not isinstance(value, dict):
        raise InvalidDelivery("body", "must be a JSON object")
    return JsonObject(value, tuple(repeated))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
