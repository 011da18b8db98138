"""Where a request comes from."""

from ipaddress import IPv6Address, IPv6Network, ip_address

from django.conf import settings
from django.http import HttpRequest

NETWORK_BITS_IPV6 = 64  # what one household or server has, to take a new address from for each request


def address_of(request: HttpRequest) -> str:
    """The caller's address, of IPv6 its network; behind TRUSTED_PROXIES of ours, what the outermost saw.

    Counted from the right: whatever a stranger writes into X-Forwarded-For stands left of what our proxies add.
    """
    seen = [request.META.get("REMOTE_ADDR", "")]
    if settings.TRUSTED_PROXIES:
        seen = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")[-settings.TRUSTED_PROXIES :]
    try:
        address = ip_address(seen[0].strip())
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or IPv6Network((int(address), NETWORK_BITS_IPV6), strict=False))
    return str(address)
