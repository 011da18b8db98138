"""Authentication and message middleware for pages; API requests skip it.

Each class extends the original, because system checks look for the originals in MIDDLEWARE.
"""

from typing import Any

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django_otp.middleware import OTPMiddleware

API_PREFIX = "/api/"


class _SkipApi:
    get_response: Any

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(API_PREFIX):
            return self.get_response(request)  # type: ignore[no-any-return]
        response: HttpResponseBase = super().__call__(request)  # type: ignore[misc]  # of the class beside this
        return response


class AdminAuthenticationMiddleware(_SkipApi, AuthenticationMiddleware):
    pass


class AdminSecondFactorMiddleware(_SkipApi, OTPMiddleware):  # type: ignore[misc]  # untyped
    pass


class AdminMessageMiddleware(_SkipApi, MessageMiddleware):
    pass
