from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command, execute_from_command_line
from django.utils import timezone

from api.keys import authenticate
from api.models import ApiKey
from tests.factories import IVANOV, ROMASHKA

pytestmark = pytest.mark.django_db


def apikey(*arguments: str) -> tuple[str, str]:
    """Return stdout and stderr."""
    out, err = StringIO(), StringIO()
    call_command("apikey", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_create_prints_only_the_key_to_stdout() -> None:
    out, err = apikey("create", "--name", "shop", "--organization", ROMASHKA, "--organization", IVANOV)

    row = authenticate(out.removesuffix("\n"))
    assert row is not None
    assert (row.name, row.scopes, row.expires_at) == ("shop", f"{IVANOV} {ROMASHKA}", None)
    assert row.prefix in err
    assert out.strip() not in err


def test_key_can_have_an_expiry() -> None:
    tomorrow = timezone.now() + timedelta(days=1)
    out, _ = apikey("create", "--name", "audit", "--read-all", "--expires", tomorrow.isoformat())

    row = authenticate(out.strip())
    assert row is not None
    assert (row.reads_all, row.expires_at) == (True, tomorrow)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--name", "x", "--organization", "12"),
        ("--name", "x", "--read-all", "--expires", "2020-01-01"),
        ("--name", "", "--read-all"),
        ("--name", "x" * 101, "--read-all"),
    ],
)
def test_create_with_invalid_options_exits_with_2(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError) as exc:
        apikey("create", *arguments)

    assert exc.value.returncode == 2
    assert not ApiKey.objects.exists()


def test_list_shows_keys_without_secrets() -> None:
    key = apikey("create", "--name", "shop", "--read-all")[0].strip()
    other = apikey("create", "--name", "former", "--organization", ROMASHKA)[0].strip()
    apikey("revoke", other.split("_")[1])

    first, second = apikey("list")[0].splitlines()

    today = f"{timezone.now():%Y-%m-%d}"
    revoked = [other.split("_")[1], "revoked", ROMASHKA, f"created {today}, never used", "former"]
    assert first.split("\t") == revoked
    assert second.split("\t")[:3] == [key.split("_")[1], "valid", "read:all"]
    assert key.split("_", 2)[2] not in second


def test_revoke_is_idempotent() -> None:
    key = apikey("create", "--name", "shop", "--read-all")[0].strip()
    prefix = key.split("_")[1]

    assert apikey("revoke", prefix)[0] == f"Revoked {prefix}.\n"
    assert authenticate(key) is None
    assert apikey("revoke", prefix)[0] == f"{prefix} was already revoked.\n"
    with pytest.raises(CommandError, match="no key with this prefix") as exc:
        apikey("revoke", "0123456789ab")
    assert exc.value.returncode == 1


def test_help_lists_exit_codes_and_malformed_options_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    def exit_code(*arguments: str) -> object:
        with pytest.raises(SystemExit) as exited:
            execute_from_command_line(["manage.py", "apikey", *arguments])
        return exited.value.code

    assert exit_code("--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Exit code: 0 done, 1 no such key, 2 invalid options" in shown
    for arguments in ([], ["create"], ["create", "--name", "x"], ["revoke"]):
        assert exit_code(*arguments) == 2, arguments
