"""Middleware that only pages need. What programs ask for, at /api/, goes past it.

Subclasses of what Django and its apps have, so that their checks of MIDDLEWARE find what they look for.
"""

from typing import Any

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django_otp.middleware import OTPMiddleware

API_PREFIX = "/api/"


class _PagesOnly:
    get_response: Any

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(API_PREFIX):
            return self.get_response(request)  # type: ignore[no-any-return]
        response: HttpResponseBase = super().__call__(request)  # type: ignore[misc]  # of the class beside this
        return response


class AdminAuthenticationMiddleware(_PagesOnly, AuthenticationMiddleware):
    """Who has logged in."""


class AdminSecondFactorMiddleware(_PagesOnly, OTPMiddleware):  # type: ignore[misc]  # untyped
    """Whether they have shown a second factor."""


class AdminMessageMiddleware(_PagesOnly, MessageMiddleware):
    """What the last page has left to say."""
