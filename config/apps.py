"""Django's admin, with our site. Not in site.py: apps are loaded before models, and the site needs models."""

from django.contrib.admin.apps import AdminConfig as DjangosAdminConfig
from django.utils.module_loading import import_string


class AdminConfig(DjangosAdminConfig):
    default_site = "config.site.Site"

    def ready(self) -> None:
        super().ready()
        for pages in ("config.second_factors", "config.users"):
            import_string(f"{pages}.take_over")()  # now that there are models
