"""The middleware that only pages need."""

import pytest
from django.test import Client

PAGE_ATTRIBUTES = ("user", "_messages")


@pytest.mark.django_db
@pytest.mark.parametrize(("path", "expected"), [("/admin/login/", True), ("/api/webhook/bank/", False)])
def test_user_and_messages_exist_only_for_pages(path: str, *, expected: bool) -> None:
    request = Client().get(path).wsgi_request
    assert [hasattr(request, name) for name in PAGE_ATTRIBUTES] == [expected] * 2
