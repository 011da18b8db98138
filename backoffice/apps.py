"""Django's admin, with our site. Not in site.py: apps are loaded before models, and the site needs models."""

from django.contrib.admin.apps import AdminConfig as DjangosAdminConfig
from django.utils.module_loading import import_string


class AdminConfig(DjangosAdminConfig):
    default_site = "backoffice.site.Site"

    def ready(self) -> None:
        super().ready()
        for pages in ("backoffice.otp.install_otp_admin", "backoffice.users.install_user_admin"):
            import_string(pages)()  # now that there are models
