"""What middleware a request meets."""

import pytest
from django.test import Client

FOR_PAGES = ("user", "_messages")


@pytest.mark.django_db
@pytest.mark.parametrize(("path", "expected"), [("/admin/login/", True), ("/api/webhook/bank/", False)])
def test_only_pages_are_asked_who_looks(path: str, *, expected: bool) -> None:
    request = Client().get(path).wsgi_request
    assert [hasattr(request, name) for name in FOR_PAGES] == [expected] * 2
