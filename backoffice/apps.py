"""Django's admin with our site; separate from site.py, because apps are loaded before the models it needs."""

from django.contrib.admin.apps import AdminConfig as DjangoAdminConfig
from django.utils.module_loading import import_string


class AdminConfig(DjangoAdminConfig):
    default_site = "backoffice.site.Site"

    def ready(self) -> None:
        super().ready()
        # By name, because these modules import models.
        for install in ("backoffice.otp.install_otp_admin", "backoffice.users.install_user_admin"):
            import_string(install)()
