"""Users and groups in the admin: only superusers grant permissions and set other users' passwords.

Django lets staff with the permission to change users make themselves superusers, or set a superuser's
password.
"""

from typing import Any

from django.contrib import admin
from django.contrib.auth import admin as auth_admin
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

from core.admin_lookups import StrictAdmin

PRIVILEGE_FIELDS = ("is_superuser", "groups", "user_permissions")
READONLY_FIELDS = ("last_login", "date_joined")  # a form would accept times that no database can store


class UserAdmin(StrictAdmin, auth_admin.UserAdmin):  # type: ignore[type-arg]  # Django's own class takes no argument
    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and _may_modify(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_modify(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        return READONLY_FIELDS if request.user.is_superuser else (*READONLY_FIELDS, *PRIVILEGE_FIELDS)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002 as in the base class
        if not request.user.is_superuser:
            raise PermissionDenied
        return super().user_change_password(request, id, form_url)


def _may_modify(request: HttpRequest, user: User | None) -> bool:
    return request.user.is_superuser or user is None or not user.is_superuser


class GroupAdmin(StrictAdmin, auth_admin.GroupAdmin):
    """Only superusers change groups, because a group's permissions are those of its members."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return request.user.is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return request.user.is_superuser


def install_user_admin() -> None:
    """Replace Django's admin pages of users and groups."""
    admin.site.unregister([User, Group])
    admin.site.register(User, UserAdmin)
    admin.site.register(Group, GroupAdmin)
