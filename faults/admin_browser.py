"""A superuser at the admin: signs in without a form, opens pages, and confirms operator actions."""

import re
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from tests.harness.bank_client import RESPONSE_SECONDS_MAX
from tests.harness.procfile_stack import ProcfileStack

CSRF_TOKEN = "c" * 32
_SIGN_IN = """
from importlib import import_module
from django.conf import settings
from django.contrib.auth.models import User
user = User.objects.create_superuser("anna")
session = import_module(settings.SESSION_ENGINE).SessionStore()
session["_auth_user_id"], session["_auth_user_hash"] = str(user.pk), user.get_session_auth_hash()
session["_auth_user_backend"] = settings.AUTHENTICATION_BACKENDS[-1]
session.create()
print(session.session_key)
"""
_DIGEST = re.compile('name="digest" value="([^"]*)"')


def sign_in(stack: ProcfileStack) -> str:
    """Create a superuser and return the key of a session: a login's password hash takes long under load.

    Raise RuntimeError if the site does not accept it.
    """
    signed_in = stack.manage("shell", "-c", _SIGN_IN)
    if signed_in.returncode:
        raise RuntimeError(signed_in.stderr)
    session_key = signed_in.stdout.split()[-1]
    index = Request(f"http://127.0.0.1:{stack.port}/admin/", headers={"Cookie": f"sessionid={session_key}"})
    with urlopen(index) as response:
        if response.url != index.full_url:
            raise RuntimeError(f"the operator is sent to {response.url}")
    return session_key


class AdminBrowser:
    """Sends requests with the cookies of a session. `errors` are responses of 500 and above."""

    def __init__(
        self, port: int, session_key: str, response_seconds_max: float = RESPONSE_SECONDS_MAX
    ) -> None:
        self.errors: list[str] = []
        self._port, self._response_seconds_max = port, response_seconds_max
        self._cookies = f"sessionid={session_key}; csrftoken={CSRF_TOKEN}"

    def confirm(self, confirmation: str, url: str, **fields: str) -> bool:
        """Open the page `confirmation` and submit it to `url`; return whether it had anything to confirm.

        Raise OSError or HTTPException if a response is missing.
        """
        digest = self.digest(confirmation)
        if digest is not None:
            self.submit(url, digest, **fields)
        return digest is not None

    def digest(self, confirmation: str) -> str | None:
        """Return what the page `confirmation` would confirm; None if that is nothing."""
        digest = _DIGEST.search(self.get(confirmation))
        return digest[1] if digest else None

    def submit(self, url: str, digest: str, **fields: str) -> None:
        self.post(url, reason="the fault suite", digest=digest, **fields)

    def get(self, path: str) -> str:
        return self._send(path, None)

    def post(self, path: str, **fields: str) -> str:
        return self._send(path, urlencode({**fields, "csrfmiddlewaretoken": CSRF_TOKEN}).encode())

    def _send(self, path: str, data: bytes | None) -> str:
        request = Request(f"http://127.0.0.1:{self._port}{path}", data, {"Cookie": self._cookies})
        try:
            with urlopen(request, timeout=self._response_seconds_max) as response:
                return str(response.read().decode())
        except HTTPError as exc:
            if exc.code >= 500:
                self.errors.append(f"{request.get_method()} {path} got {exc.code}")
            raise
