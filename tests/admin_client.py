"""Admin clients with different permissions."""

import re

from django.contrib.auth.models import Permission, User
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse


def superuser_client(name: str = "anna") -> Client:
    return _log_in(User.objects.create_superuser(name))


def staff_client(*permissions: str, name: str = "olga") -> Client:
    """Log in a staff user who has only these permissions, given by codename."""
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return _log_in(user)


def _log_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def admin_url(model: type[Model], name: str, *args: object) -> str:
    """Return the URL of a model's admin page: changelist, add, change, delete or history."""
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=args)


def changelist_rows(client: Client, model: type[Model], **query: str) -> list[str]:
    """Return the rows of a changelist as strings, in page order."""
    response = client.get(admin_url(model, "changelist"), query)
    assert response.status_code == 200
    return [str(row) for row in response.context["cl"].result_list]


def hidden_fields(response: HttpResponse) -> dict[str, str]:
    """Return the hidden fields of a confirmation page's form."""
    found = re.findall(r'<input type="hidden" name="(ids|digest)" value="([^"]*)"', response.content.decode())
    return dict(found)
