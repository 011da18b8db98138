"""Every numeric variable has a range; a value out of it ends every process at startup with one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from config.env import NUMBERS, Environment, email_from_url, suspected_duplicates
from tests.devtools.test_run import startup_error
from tests.harness.servers import ROOT, free_port
from tests.harness.stack import clean_environment
from tests.markers import sqlite_run_only

pytestmark = sqlite_run_only
EXAMPLE = (ROOT / ".env.example").read_text()
DOCUMENTED = dict(re.findall(r"^# ([A-Z_]+)=([0-9]+(?:\.[0-9]+)?)$", EXAMPLE, re.MULTILINE))
BOOLEANS = {"DEBUG", "BEHIND_TLS_PROXY", "SECOND_FACTOR_REQUIRED"}
MALFORMED = [
    "-1",
    "many",
    "nan",
    "inf",
    "-inf",
    "1e3",
    "0x10",
    "1_000",
    "１",
    "+1",
    " 1",
    "1 2",
    "1\n2",
    "9" * 5000,
]
# A process of each kind that reads variables.
PROGRAMS = {
    "gunicorn": ["gunicorn", "--config", "python:config.gunicorn", "config.asgi"],
    "worker": ["celery", "--quiet", "-A", "worker", "worker"],
    "beat": ["celery", "--quiet", "-A", "worker", "beat"],
    "manage.py": ["manage.py", "prune", "--dry-run"],
}


def read(name: str, text: str) -> float:
    env = Environment()
    env.ENVIRON = {name: text}
    is_integer = isinstance(NUMBERS[name][0], int)
    return env.integer(name) if is_integer else env.number(name)


def test_every_documented_number_has_a_range_and_its_default() -> None:
    assert DOCUMENTED.keys() - BOOLEANS == NUMBERS.keys()
    assert {name: str(NUMBERS[name][0]) for name in NUMBERS} == {name: DOCUMENTED[name] for name in NUMBERS}


@pytest.mark.parametrize("name", NUMBERS)
def test_range_and_meaning_of_zero_are_documented(name: str) -> None:
    about = EXAMPLE.partition(f"\n# {name}=")[0].rpartition("\n\n")[2].replace("\n#", "")
    _, minimum, maximum = NUMBERS[name]

    assert re.search(rf"\b{minimum:g} to {int(maximum)}\b", about)
    assert minimum > 0 or " 0: " in about


@pytest.mark.parametrize("name", NUMBERS)
def test_minimum_and_maximum_are_accepted(name: str) -> None:
    _, minimum, maximum = NUMBERS[name]
    assert (read(name, f"{minimum:g}"), read(name, str(int(maximum)))) == (minimum, maximum)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", [*MALFORMED, "beyond", "below"])
def test_value_out_of_range_is_rejected_in_one_line(name: str, text: str) -> None:
    _, minimum, maximum = NUMBERS[name]
    if text == "below" and minimum == 0:
        pytest.skip("0 has a meaning here")
    text = {"beyond": str(int(maximum) + 1), "below": "0"}.get(text, text)

    with pytest.raises(ImproperlyConfigured, match=rf"^{name}=.*{minimum} to {maximum}") as exc:
        read(name, text)

    assert "\n" not in str(exc.value)
    assert len(str(exc.value)) < 200


def test_email_url_becomes_djangos_settings_and_its_error_hides_the_password() -> None:
    email = email_from_url("smtp+tls://prihod:secret-word@mail.example:587", required=True)

    assert (email["EMAIL_HOST"], email["EMAIL_PORT"], email["EMAIL_USE_TLS"]) == ("mail.example", 587, True)
    assert (email["EMAIL_HOST_USER"], email["EMAIL_HOST_PASSWORD"]) == ("prihod", "secret-word")
    assert email["EMAIL_TIMEOUT"] == 10
    assert email_from_url("", required=False) == {}
    with pytest.raises(ImproperlyConfigured, match="ALERT_EMAILS is set, but EMAIL_URL is not"):
        email_from_url("", required=True)
    for url in ("smtp://", "secret-word", "smtp://u:secret-word@h:port", "pigeon://u:secret-word@h"):
        with pytest.raises(ImproperlyConfigured, match=r"^EMAIL_URL is malformed") as exc:
            email_from_url(url, required=False)
        assert "secret-word" not in str(exc.value)


@pytest.mark.parametrize("text", ["mark", "hold", "off"])
def test_suspected_duplicates_is_one_of_three_words(text: str) -> None:
    assert suspected_duplicates(text) == text
    with pytest.raises(ValueError, match=f"^{text.upper()}$"):
        suspected_duplicates(text.upper())


def test_settings_read_every_number_with_its_range() -> None:
    settings = (ROOT / "config/settings.py").read_text()
    assert set(re.findall(r'env\.(?:integer|number)\("([A-Z_]+)"\)', settings)) == NUMBERS.keys()


@pytest.mark.parametrize("name", ["PORT", "WEB_THREADS", "DELIVERY_RECORDS_MAX", "SWEEP_INTERVAL_SECONDS"])
def test_make_run_with_a_number_out_of_range_starts_nothing(name: str, tmp_path: Path) -> None:
    assert startup_error(tmp_path, **{name: "-1"}).startswith(f"{name}=-1 is malformed; it must be a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
@pytest.mark.parametrize(
    ("program", "name"),
    [
        *(("gunicorn", name) for name in ("PORT", "DELIVERY_RECORDS_MAX")),  # it reads its own first
        *((program, "DELIVERY_RECORDS_MAX") for program in ("beat", "manage.py")),
        ("worker", "WORKER_PROCESSES"),
    ],
)
def test_every_program_exits_without_a_traceback(program: str, name: str, tmp_path: Path) -> None:
    first, *others = PROGRAMS[program]
    command = [sys.executable, *([first] if first.endswith(".py") else ["-m", first]), *others]
    base = clean_environment(PORT=str(free_port()), DATA_DIR=str(tmp_path))
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**base, "WEB_PROCESSES": "1", name: "-1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    lines = {line for line in done.stderr.splitlines() if not line.startswith("{")}  # gunicorn's are JSON
    assert done.returncode != 0
    assert len(lines) == 1, done.stderr
    assert lines.pop().startswith(f"Prihod can't start: {name}=-1 is malformed")
