"""Addresses that are listened on, IPv4 and IPv6 alike."""

import ipaddress
import socket

LOOPBACK = "127.0.0.1"


def host(text: str) -> str:
    """HOST as sockets want it: an IPv6 address without its brackets."""
    return text.removeprefix("[").removesuffix("]")


def family(host: str) -> socket.AddressFamily:
    """Of a socket that listens on `host`. A name is of IPv4, as it is for gunicorn."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def in_url(host: str) -> str:
    """`host` as it stands in a URL and in front of a port (RFC 3986, 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def reachable(host: str) -> str:
    """An address of this machine that a client on it reaches the listener of `host` by."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return host
    loopback = LOOPBACK if address.version == 4 else "::1"
    return loopback if address.is_unspecified else host


def url(host: str, port: int) -> str:
    """Of the listener of `host` and `port`, for a client on this machine."""
    return f"http://{in_url(reachable(host))}:{port}"
