"""Users and groups in the admin: only superusers give permissions, passwords and second factors.

Django lets staff with the permission to change users make themselves superusers, or set the password of one.
"""

from typing import Any

from django.contrib import admin
from django.contrib.auth import admin as djangos
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

from core.admin_lookups import StrictAdmin

POWERS = ("is_superuser", "groups", "user_permissions")
FACTS = ("last_login", "date_joined")  # and a form would take a moment that no database can store


class UserAdmin(StrictAdmin, djangos.UserAdmin):  # type: ignore[type-arg]  # Django's own class takes no argument
    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        return FACTS if request.user.is_superuser else (*FACTS, *POWERS)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002 as the base has it
        if not request.user.is_superuser:
            raise PermissionDenied
        return super().user_change_password(request, id, form_url)


def _may_touch(request: HttpRequest, user: User | None) -> bool:
    return request.user.is_superuser or user is None or not user.is_superuser


class GroupAdmin(StrictAdmin, djangos.GroupAdmin):
    """A group's permissions are its members': only superusers change them."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return request.user.is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return request.user.is_superuser


def install_user_admin() -> None:
    """Put these pages in the place of Django's."""
    admin.site.unregister([User, Group])
    admin.site.register(User, UserAdmin)
    admin.site.register(Group, GroupAdmin)
