"""IPv4 and IPv6 addresses of listening sockets."""

import ipaddress
import socket

LOOPBACK = "127.0.0.1"


def host(text: str) -> str:
    """Return HOST in the form for sockets: an IPv6 address without brackets."""
    return text.removeprefix("[").removesuffix("]")


def family(host: str) -> socket.AddressFamily:
    """Return the family of a socket that listens on `host`. A name means IPv4, as in gunicorn."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def in_url(host: str) -> str:
    """Return `host` in the form for URLs and in front of a port (RFC 3986, 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def reachable(host: str) -> str:
    """Return the address by which a client on this machine reaches a server that listens on `host`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return host
    loopback = LOOPBACK if address.version == 4 else "::1"
    return loopback if address.is_unspecified else host


def url(host: str, port: int) -> str:
    """Return the base URL of a server that listens on `host` and `port`, for a client on this machine."""
    return f"http://{in_url(reachable(host))}:{port}"
