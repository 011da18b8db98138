"""The admin's site: what all its pages share."""

from django.conf import settings
from django.contrib.admin import AdminSite
from django.contrib.admin.apps import AdminConfig as DjangosAdminConfig


class AdminConfig(DjangosAdminConfig):
    default_site = "config.site.Site"


class Site(AdminSite):
    site_title = "Prihod"
    site_header = f"Prihod · times in {settings.TIME_ZONE}"
    enable_nav_sidebar = False  # the lists need its width
