"""The page that uploads bank statements: several files, each with its verdict, then the matching.

With JavaScript each file is a request of its own, answered by its verdict as a part of the page, and the
matching another one; without it the form sends all files at once.
"""

from typing import Any, cast

import structlog
from django.contrib.admin.sites import AdminSite
from django.contrib.auth.models import User
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

from statements import buckets
from statements.admin import verdicts
from statements.buckets import Scope
from statements.importing import StatementRefused, import_statement
from statements.matching import match
from statements.models import BankStatement, OwnAccount
from statements.reading import BODY_BYTES_MAX

FILES_MAX = 50  # of a form without JavaScript
FILE, PART = "file", "part"  # fields of the form; `part` asks for a verdict as a part of the page
log = structlog.get_logger(__name__)


def upload_page(request: HttpRequest, site: AdminSite) -> HttpResponse:
    """Show the page; of a POST with files, their verdicts."""
    if request.method == "POST" and PART in request.POST:
        return _part(request)
    files = request.FILES.getlist(FILE)[:FILES_MAX] if request.method == "POST" else []
    results = [_result(request, file) for file in files]
    context = {
        **site.each_context(request),
        "title": _("Upload bank statements"),
        "opts": BankStatement._meta,
        "has_accounts": OwnAccount.objects.exists(),
        "can_add_account": request.user.has_perm("statements.add_ownaccount"),
        "bytes_max": BODY_BYTES_MAX,
        "results": results,
        **(_matched() if files else {}),
    }
    return TemplateResponse(request, "admin/statements/upload.html", context)


def _part(request: HttpRequest) -> HttpResponse:
    if request.POST[PART] == "match":
        return render(request, "admin/statements/matched.html", _matched())
    files = request.FILES.getlist(FILE)
    if len(files) != 1:
        return HttpResponse(status=400)
    return render(request, "admin/statements/verdict.html", {"result": _result(request, files[0])})


def _result(request: HttpRequest, file: "UploadedFile[bytes]") -> dict[str, Any]:
    """Import the file; return the context of its verdict."""
    name = file.name or ""
    can_add_account = request.user.has_perm("statements.add_ownaccount")
    try:
        imported = import_statement(_body(file), name, cast(User, request.user))
    except StatementRefused as exc:
        log.info("bank statement refused", name=name, reason=str(exc), line=exc.line)
        return {"name": name, "refused": verdicts.refused(name, exc), "can_add_account": can_add_account}
    log.info(
        "bank statement imported", name=name, statement=imported.statement.pk, new_lines=imported.new_lines
    )
    return {"name": name, **verdicts.imported_context(imported)}


def _body(file: "UploadedFile[bytes]") -> bytes:
    """Return the bytes, at most one more than a statement may have, which is then refused."""
    body: bytes = file.read(BODY_BYTES_MAX + 1)
    return body


def _matched() -> dict[str, Any]:
    """Match what was imported; return how many differences wait for an operator."""
    match()
    return {"is_matched": True, "waiting": buckets.count_waiting(Scope())}
