import pytest

from config import gunicorn
from core import listen_address
from core.listen_address import host, in_url, reachable, url


@pytest.mark.parametrize(
    ("told", "shown"),
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
def test_url_of_a_listener_is_one_that_a_client_here_can_call(told: str, shown: str) -> None:
    assert url(host(told), 8333) == shown
    assert in_url(reachable(host(told))) in shown


@pytest.mark.parametrize(
    ("told", "family"), [("::", "AF_INET6"), ("0.0.0.0", "AF_INET"), ("host", "AF_INET")]
)
def test_family_is_that_of_the_address(told: str, family: str) -> None:
    assert listen_address.family(told).name == family


def test_web_server_binds_where_the_settings_say() -> None:
    assert gunicorn.bind == "127.0.0.1:8000"
