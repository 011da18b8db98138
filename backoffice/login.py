"""The admin's login: user name, password and, if required, the code of a second factor."""

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
    """Django's form with a field for the code, which users without a second factor leave empty."""

    otp_token = forms.CharField(
        label=gettext_lazy("Second-factor code, if you have set one up"),
        max_length=16,  # the length of a backup code
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code"}),
    )

    def confirm_login_allowed(self, user: Any) -> None:
        """Check the code after the password was accepted. Raise ValidationError."""
        super().confirm_login_allowed(user)
        if not requires_second_factor(user):
            return
        if not user_has_device(user):
            raise forms.ValidationError(
                _("A second factor is required, and you have not set one up: ask for a backup code"),
                code="no_device",
            )
        device = matching_device(user, self.cleaned_data.get("otp_token", "").replace(" ", ""))
        if device is None:
            raise forms.ValidationError(
                _("The code is missing, wrong or already used. After a wrong code wait a few seconds."),
                code="code",
            )
        user.otp_device = device  # login() stores it in the session


def requires_second_factor(user: Any) -> bool:
    """Return whether the user must enter a code: with SECOND_FACTOR_REQUIRED, or with a TOTP device.

    Remaining backup codes alone don't require one.
    """
    if not hasattr(user, "has_totp"):  # evaluated several times per page
        user.has_totp = TOTPDevice.objects.devices_for_user(user, confirmed=True).exists()
    return bool(settings.SECOND_FACTOR_REQUIRED or user.has_totp)


def matching_device(user: User, code: str) -> Any:
    """Return the device of `user` that accepts the code, or None; then its throttling delay grows.

    Digits go to TOTP devices and other codes to backup codes, so that a wrong code of one kind never
    throttles the other.
    """
    tried: list[Any] = []
    with transaction.atomic():
        for device in devices_for_user(user, for_verify=True):
            if not code or isinstance(device, TOTPDevice) != code.isdecimal():
                continue
            if device.verify_is_allowed()[0] and device.verify_token(code):
                for other in tried:  # the code was meant for `device`
                    other.throttle_reset()
                return device
            tried.append(device)
    return None


def axes_client_ip(request: HttpRequest) -> str | None:
    """Return the network by which django-axes counts failed logins, as the address that it stores."""
    network = client_network(request)
    return str(network) if network else None
