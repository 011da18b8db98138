"""Django's admin, with our site. Not in site.py: apps are loaded before models, and the site needs models."""

from django.contrib.admin.apps import AdminConfig as DjangosAdminConfig


class AdminConfig(DjangosAdminConfig):
    default_site = "config.site.Site"
