"""The client's IP address, behind zero or more trusted proxies."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from django.conf import settings
from django.http import HttpRequest

Address = IPv4Address | IPv6Address
CACHED_ADDRESSES_MAX = 128
NETWORK_BITS_IPV6 = 64
TEXT_CHARS_MAX = 39  # eight groups of four hexadecimal digits and seven colons


def client_ip(request: HttpRequest) -> Address | None:
    """Return the peer's address, or the one that the outermost of TRUSTED_PROXIES saw; None if unknown.

    Each proxy appends the address of its own peer to X-Forwarded-For. Only as many entries from the right
    are trustworthy as there are proxies; the client can forge all others.
    """
    return _parse(_peer_or_forwarded(request))


def client_network(request: HttpRequest) -> Address | None:
    """Return the key for rate limits: the IPv4 address, or the first address of the IPv6 /64.

    One client usually controls a whole /64.
    """
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


# A bank delivers from a few addresses, and parsing is a noticeable part of handling a delivery.
@lru_cache(CACHED_ADDRESSES_MAX)
def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address  # a dual-stack socket reports ::ffff:192.0.2.1


@lru_cache(CACHED_ADDRESSES_MAX)
def format_ip(address: Address | None) -> str:
    """Format an address for storage, at most TEXT_CHARS_MAX characters; empty for None.

    Drop the zone id (RFC 4007), which is free text of any length.
    """
    return str(address or "").partition("%")[0]
