"""Route the endpoint to the baseline."""

from django.conf import settings
from django.urls import path
from django.utils.module_loading import import_string

from web import health

urlpatterns = [
    path("api/webhook/bank/", import_string(f"{settings.BASELINE}.bank_webhook")),
    path("readyz", health.readyz),
]
