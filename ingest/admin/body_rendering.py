"""Bodies of deliveries as bounded text: 64 KiB of brackets, indented, would be 32 MB."""

import re
from itertools import accumulate

import msgspec
from django.utils.html import format_html
from django.utils.translation import gettext as _

from ingest.signatures import unverified_payload

BLOCK_CHARS_MAX = 64 * 1024  # as many as a body has bytes; each may take six in HTML: &quot;
INDENTED_DEPTH_MAX = 32
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_STEPS = dict.fromkeys(b"[{", 1) | dict.fromkeys(b"]}", -1)


def preformatted(text: str) -> str:
    """Return the text in a <pre>, escaped, truncated to BLOCK_CHARS_MAX characters."""
    rest = len(text) - BLOCK_CHARS_MAX
    end = "\n" + _("… and {n} more characters").format(n=rest) if rest > 0 else ""
    return format_html('<pre class="body">{}{}</pre>', text[:BLOCK_CHARS_MAX], end)


def indent_json(body: bytes) -> str:
    """Return the payload as indented JSON, or why there is none. Numbers stay as they were sent."""
    payload = unverified_payload(body)
    if _depth(payload) > INDENTED_DEPTH_MAX:
        return _("not JSON, or nested too deeply")
    try:
        return msgspec.json.format(payload.decode(), indent=2)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return _("not JSON")


def escape_bytes(body: bytes) -> str:
    """Return the bytes as in a Python literal: all but printable ASCII is escaped."""
    return repr(body)[2:-1]


def _depth(payload: bytes) -> int:
    """Return the nesting depth of the payload as far as it is JSON."""
    return max(accumulate(_STEPS.get(byte, 0) for byte in _STRING.sub(b"", payload)), default=0)
