"""The admin's login: a name and a password, and the code of a second factor from whoever has one."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django_otp import devices_for_user, user_has_device
from django_otp.plugins.otp_totp.models import TOTPDevice

from core.client_ip import client_network


class LoginForm(AdminAuthenticationForm):
    """Django's form with one more field, which people without a second factor leave empty."""

    otp_token = forms.CharField(
        label=gettext_lazy("Code of your second factor, if you have one"),
        max_length=16,  # as long as a one-time code can be
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code"}),
    )

    def confirm_login_allowed(self, user: Any) -> None:
        """Called once the password was right. Raises ValidationError."""
        super().confirm_login_allowed(user)
        if not requires_second_factor(user):
            return
        if not user_has_device(user):
            raise forms.ValidationError(
                _("A second factor is required, and you have none yet: ask for a one-time code"),
                code="no_device",
            )
        device = matching_device(user, self.cleaned_data.get("otp_token", "").replace(" ", ""))
        if device is None:
            raise forms.ValidationError(
                _("The code is missing, wrong or used before. After a wrong one wait a few seconds."),
                code="code",
            )
        user.otp_device = device  # login() notes it in the session


def requires_second_factor(user: Any) -> bool:
    """Of everybody if it is required, else of who has an app. Left-over one-time codes ask for nothing."""
    if not hasattr(user, "has_totp"):  # asked a few times for one page
        user.has_totp = TOTPDevice.objects.devices_for_user(user, confirmed=True).exists()
    return bool(settings.SECOND_FACTOR_REQUIRED or user.has_totp)


def matching_device(user: User, code: str) -> Any:
    """The device of `user` whose code this is, or None, which that device counts, and waits longer each time.

    Digits are an app's, anything else is a one-time code: a wrong one of one kind slows the other down not.
    """
    tried: list[Any] = []
    with transaction.atomic():
        for device in devices_for_user(user, for_verify=True):
            if not code or isinstance(device, TOTPDevice) != code.isdecimal():
                continue
            if device.verify_is_allowed()[0] and device.verify_token(code):
                for other in tried:  # it was no failure of theirs
                    other.throttle_reset()
                return device
            tried.append(device)
    return None


def axes_client_ip(request: HttpRequest) -> str | None:
    """The network that failed logins are counted by, as the address that django-axes keeps."""
    network = client_network(request)
    return str(network) if network else None
