"""The API's upload of bank statements, for programs with a key of the scope write:bank-statements."""

import msgspec
import structlog
from django.http import HttpRequest, HttpResponse

from api.authentication import require_scope
from api.models import WRITE_STATEMENTS, ApiKey
from core.http import INCOMPLETE, error_response, json_response, json_view, service_unavailable
from statements.importing import StatementRefused, import_statement
from statements.matching import match
from statements.models import NAME_CHARS_MAX
from statements.reading import BODY_BYTES_MAX
from statements.report import imported_json
from statements.schemas import ImportedStatement, RefusedStatement

LENGTH_DIGITS_MAX = len(str(BODY_BYTES_MAX))  # int() refuses thousands of digits
log = structlog.get_logger(__name__)


@json_view("POST")
@require_scope(WRITE_STATEMENTS)
def bank_statements(request: HttpRequest, key: ApiKey) -> HttpResponse:
    """Import the body, a file as the bank wrote it; then match it. `name` in the query names it.

    201 if it is new, 200 if the same bytes were imported before, 400 with the line if it is refused.
    """
    header = request.META.get("CONTENT_LENGTH", "")
    if not header.isdecimal():
        return error_response(411, "Content-Length is required")
    digits = header.lstrip("0") or "0"
    if len(digits) > LENGTH_DIGITS_MAX or int(digits) > BODY_BYTES_MAX:
        return error_response(413, f"body: must not be longer than {BODY_BYTES_MAX} bytes")
    body = request.read(int(digits))
    if len(body) < int(digits):
        return service_unavailable(INCOMPLETE)
    name = request.GET.get("name", "").replace("\0", "")[:NAME_CHARS_MAX]
    try:
        imported = import_statement(body, name)
    except StatementRefused as exc:
        log.info("bank statement refused", name=name, key=key.prefix, reason=str(exc), line=exc.line)
        return json_response(RefusedStatement(str(exc), msgspec.UNSET if exc.line is None else exc.line), 400)
    log.info("bank statement imported", name=name, key=key.prefix, statement=imported.statement.pk)
    match()
    answer = msgspec.convert(imported_json(imported), ImportedStatement)
    return json_response(answer, 200 if imported.is_repeated else 201)
