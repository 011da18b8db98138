"""Typed access to the fields of a bank's JSON object.

A field that can't be read raises InvalidDelivery with the reason: the delivery is then unrecognized, not
rejected. Only a body that is no JSON at all raises NotJson.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from ingest import field_rules
from ingest.exceptions import InvalidDelivery, NotJson
from ingest.field_rules import FIELD_CHARS_SHOWN
from ledger.inn import is_inn, suspense_key

KIO_CHARS = 5  # of a foreign organization, in the payer's INN (field 60) of its payment orders
INTEGER_CHARS_MAX = 64


class JsonNumber(str):
    """A JSON number as written, digit by digit."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class JsonObject:
    """A JSON object. Each method takes the bank's name of a field and raises InvalidDelivery."""

    fields: Mapping[str, Any]
    repeated: tuple[str, ...] = ()  # names that occur twice in one object, at any depth
    prefix: str = ""  # of the field names in error messages

    def full_name(self, name: str) -> str:
        return f"{self.prefix}{name}"

    def require_unique(self) -> None:
        """Refuse repeated fields: JSON doesn't say which value counts."""
        for name in self.repeated:
            raise InvalidDelivery(name[:FIELD_CHARS_SHOWN], "is given twice")

    def nested(self, name: str) -> "JsonObject":
        value = self._value(name)
        if not isinstance(value, Mapping):
            self._refuse_type(name, value, "an object")
        return JsonObject(value, prefix=f"{self.full_name(name)}.")

    def text(self, name: str) -> str:
        value = self._value(name)
        if not isinstance(value, str) or isinstance(value, JsonNumber):
            self._refuse_type(name, value, "a string")
        return self._encodable(name, value)

    def text_or_integer(self, name: str) -> str:
        """Return a string, or an integer as written: banks' systems differ in that."""
        value = self._value(name)
        if isinstance(value, JsonNumber):
            if not value.isdecimal() or len(value) > INTEGER_CHARS_MAX:
                self._refuse_type(name, value, "a string or a whole number")
            return str(value)
        return self.text(name)

    def kopecks(self, name: str) -> int:
        """Return an amount in rubles as kopecks."""
        value = self._value(name)
        if not isinstance(value, str):
            self._refuse_type(name, value, "a number or a string")
        self._encodable(name, value)
        raw = value.encode() if isinstance(value, JsonNumber) else msgspec.json.encode(str(value))
        return field_rules.amount_kopecks(raw, self.full_name(name))

    def inn_or_suspense(self, name: str, account: object) -> str:
        """Return the INN to credit, or the suspense account of our `account` if the payer has none.

        A private person has none, or zeros; a foreign organization has a KIO.
        """
        value = self.fields.get(name)
        text = value.strip() if isinstance(value, str) else value
        if text is None or (isinstance(text, str) and not text.strip("0")):
            return suspense_key(account)
        if not isinstance(value, str) or isinstance(value, JsonNumber):
            self._refuse_type(name, value, "a string of 10 or 12 digits")
        if is_inn(value):
            return value
        if len(value) == KIO_CHARS and value.isascii() and value.isdecimal():
            return suspense_key(account)
        raise InvalidDelivery(self.full_name(name), "is no INN: it must have exactly 10 or 12 digits")

    def _value(self, name: str) -> Any:
        if name not in self.fields:
            raise InvalidDelivery(self.full_name(name), "is missing")
        return self.fields[name]

    def _encodable(self, name: str, text: str) -> str:
        """Refuse half of a surrogate pair, which JSON can escape and no database stores."""
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidDelivery(self.full_name(name), "must be valid Unicode") from None
        return text

    def _refuse_type(self, name: str, value: Any, expected: str) -> NoReturn:
        raise InvalidDelivery(self.full_name(name), f"must be {expected}, got {_type_name(value)}")


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, JsonNumber):
        return "a number"
    return {bool: "true or false", str: "a string", list: "an array"}.get(type(value), "an object")


def parse_json_object(body: bytes) -> JsonObject:
    """Parse `body`. Raise NotJson, or InvalidDelivery for JSON that is no object."""
    repeated: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, value in pairs:
            if name in fields:
                repeated.append(name.encode(errors="replace").decode())
            fields[name] = value
        return fields

    try:
        value = json.loads(
            body.decode("utf-8-sig"),
            object_pairs_hook=collect,
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
