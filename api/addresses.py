"""Where a request comes from."""

from ipaddress import IPv4Address, IPv6Address, ip_address

from django.conf import settings
from django.http import HttpRequest

Address = IPv4Address | IPv6Address


def address_of(request: HttpRequest) -> Address | None:
    """The peer's address, or what the outermost of TRUSTED_PROXIES saw; None where there is no such address.

    Each proxy appends to X-Forwarded-For whom it was called by, so only as many entries from the right are
    true as there are proxies; whatever stands before them the caller may have made up.
    """
    text: str = request.META.get("REMOTE_ADDR", "")  # empty on a Unix socket
    if proxies := settings.TRUSTED_PROXIES:
        hops = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
        text = hops[-proxies] if proxies <= len(hops) else ""
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address  # ::ffff:192.0.2.1, where one socket serves both
