import pytest

from config import gunicorn
from core import listen_address
from core.listen_address import host, in_url, reachable, url


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:8333"),
        ("0.0.0.0", "http://127.0.0.1:8333"),
        ("::1", "http://[::1]:8333"),
        ("[::1]", "http://[::1]:8333"),
        ("::", "http://[::1]:8333"),
        ("0:0::0", "http://[::1]:8333"),
        ("2001:db8::7", "http://[2001:db8::7]:8333"),
        ("prihod.example", "http://prihod.example:8333"),
    ],
)
def test_url_is_reachable_for_a_local_client(configured: str, expected: str) -> None:
    assert url(host(configured), 8333) == expected
    assert in_url(reachable(host(configured))) in expected


@pytest.mark.parametrize(
    ("host", "family"), [("::", "AF_INET6"), ("0.0.0.0", "AF_INET"), ("host", "AF_INET")]
)
def test_family_matches_the_address(host: str, family: str) -> None:
    assert listen_address.family(host).name == family


def test_gunicorn_binds_to_the_configured_address() -> None:
    assert gunicorn.bind == "127.0.0.1:8000"
