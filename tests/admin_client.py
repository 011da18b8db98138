"""The admin as people with different permissions see it."""

import re

from django.contrib.auth.models import Permission, User
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse


def superuser_client(name: str = "anna") -> Client:
    return _logged_in(User.objects.create_superuser(name))


def staff_client(*permissions: str, name: str = "olga") -> Client:
    """Someone on the staff with these permissions, given by codename, and no others."""
    person = User.objects.create_user(name, is_staff=True)
    person.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return _logged_in(person)


def _logged_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def admin_url(model: type[Model], name: str, *args: object) -> str:
    """The URL of a model's admin page: changelist, add, change, delete or history."""
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=args)


def changelist_rows(client: Client, model: type[Model], **query: str) -> list[str]:
    """What the rows of a list are called, in its order."""
    answer = client.get(admin_url(model, "changelist"), query)
    assert answer.status_code == 200
    return [str(row) for row in answer.context["cl"].result_list]


def hidden_fields(asked: HttpResponse) -> dict[str, str]:
    """What the form of a confirmation page carries along."""
    found = re.findall(r'<input type="hidden" name="(ids|shown)" value="([^"]*)"', asked.content.decode())
    return dict(found)
