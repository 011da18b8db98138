"""Where a request comes from."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from django.conf import settings
from django.http import HttpRequest

Address = IPv4Address | IPv6Address
ADDRESSES_KNOWN_MAX = 128
NETWORK_BITS_IPV6 = 64
TEXT_CHARS_MAX = 39  # eight groups of four, and seven colons


def client_ip(request: HttpRequest) -> Address | None:
    """The peer's address, or what the outermost of TRUSTED_PROXIES saw; None where there is no such address.

    Each proxy appends to X-Forwarded-For whom it was called by, so only as many entries from the right are
    true as there are proxies; whatever stands before them the caller may have made up.
    """
    return _read(_peer_or_forwarded(request))


def client_network(request: HttpRequest) -> Address | None:
    """What a request is counted by: the address, or the first one of its /64, all of which one caller has."""
    address = client_ip(request)
    if isinstance(address, IPv6Address):
        return IPv6Network((int(address), NETWORK_BITS_IPV6), strict=False).network_address
    return address


def _peer_or_forwarded(request: HttpRequest) -> str:
    text: str = request.META.get("REMOTE_ADDR", "")  # empty on a Unix socket
    if proxies := settings.TRUSTED_PROXIES:
        hops = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
        text = hops[-proxies] if proxies <= len(hops) else ""
    return text


# A bank has a few addresses, and to read one takes as long as much else at the door.
@lru_cache(ADDRESSES_KNOWN_MAX)
def _read(text: str) -> Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address  # ::ffff:192.0.2.1, where one socket serves both


@lru_cache(ADDRESSES_KNOWN_MAX)
def format_ip(address: Address | None) -> str:
    """Return the address without its zone (RFC 4007), which may be any text; empty for None."""
    return str(address or "").partition("%")[0]
