"""docker-compose.yml, Dockerfile, Procfile and docs/deployment.md agree; no container engine needed."""

import os
import re
import stat
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from config import gunicorn
from core.delivery_auth import decode_secret
from tests.harness.servers import ROOT
from worker.heartbeats import heartbeat_path

COMPOSE_FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = YAML(typ="safe").load(COMPOSE_FILE)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROCFILE = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines() if line)
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OWN = ["web", "web-2", "worker", "beat", "migrate"]
OTHERS = ["mysql", "redis", "proxy"]
LONG_RUNNING = sorted(SERVICES.keys() - {"migrate"})
KEYS = "${KEYS_DIR:-./keys}:/keys:ro"
SECRETS = set(re.findall(r"\$\{(\w+):\?", COMPOSE_FILE.read_text()))


@pytest.mark.process
def test_compose_file_follows_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run([*check, COMPOSE_FILE], check=False, capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout
    assert "version" not in COMPOSE


@pytest.mark.parametrize("name", sorted(PROCFILE))
def test_container_runs_the_procfiles_command(name: str) -> None:
    assert SERVICES[name]["command"] == ["sh", "-c", PROCFILE[name].replace("$", "$$")]


def test_every_variable_reaches_the_containers() -> None:
    documented = set(re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    passed_on = set(SERVICES["web"]["environment"]) | set(SERVICES["worker"]["environment"])

    # DATA_DIR is for development only; PORT is the published port.
    assert documented - passed_on == {"DATA_DIR", "PORT"}
    assert SERVICES["web"]["environment"]["HOST"] == "0.0.0.0"
    published = {"target": 8000, "published": "${PORT:-8000}", "host_ip": "${HOST:-127.0.0.1}"}
    assert SERVICES["web"]["ports"] == [published]


def test_every_container_is_in_production_mode() -> None:
    assert {SERVICES[name]["environment"]["DEBUG"] for name in OWN} == {"0"}


def test_every_secret_is_documented_and_written_by_the_script(tmp_path: Path) -> None:
    documentation = (ROOT / "docs/deployment.md").read_text()
    script = ["sh", str(ROOT / "deploy/write_env.sh")]
    subprocess.run(script, cwd=tmp_path, check=True, capture_output=True)
    written = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())

    assert {name for name in written if f"`{name}`" not in documentation} == set()
    assert len(decode_secret(written.pop("WEBHOOK_SECRETS"))) == 32
    assert written.keys() == SECRETS
    assert len(set(written.values())) == len(written)
    assert all(re.fullmatch(r"[0-9a-f]{64}", secret) for secret in written.values())
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_script_does_not_overwrite_secrets(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SECRET_KEY=mine\n")
    script = ["sh", str(ROOT / "deploy/write_env.sh")]
    again = subprocess.run(script, cwd=tmp_path, check=False, capture_output=True)

    assert again.returncode != 0
    assert (tmp_path / ".env").read_text() == "SECRET_KEY=mine\n"


def test_compose_file_contains_no_secret() -> None:
    for name, service in SERVICES.items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|AUTH", variable) and value is not None:
                assert re.fullmatch(r"\$\{\w+:\?.+\}", value), f"{name}: {variable}"


def test_only_web_and_its_proxy_publish_a_port() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["web", "proxy"]
    assert [name for name, service in SERVICES.items() if "network_mode" in service] == []


def test_workers_can_be_scaled() -> None:
    assert SERVICES["worker"].keys() & {"container_name", "ports", "hostname"} == set()
    assert SERVICES["worker"]["volumes"] == [KEYS]  # read-only


@pytest.mark.parametrize("name", OWN)
def test_public_key_files_are_mounted_and_not_in_the_image(name: str) -> None:
    documentation = (ROOT / "docs/deployment.md").read_text()

    assert SERVICES[name]["volumes"] == [KEYS]
    assert "WEBHOOK_PUBLIC_KEY_FILE=/keys/bank.pem" in documentation
    assert "/keys/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_capabilities_memory_and_processes_are_limited(name: str) -> None:
    service = SERVICES[name]

    assert service["cap_drop"] == ["ALL"]
    capabilities = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"} if name in OTHERS else set()
    if name in {"mysql", "proxy"}:  # their first process stops those of another user
        capabilities.add("KILL")
    assert set(service.get("cap_add", [])) == capabilities
    assert service["mem_limit"]
    assert service["pids_limit"]


def test_images_are_pinned_to_a_release_series() -> None:
    images = [service["image"] for name, service in SERVICES.items() if name not in OWN]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)

    assert len(images) == 5
    for image in images:
        assert re.fullmatch(r"[a-z]+:\d+\.\d+(-[a-z-]+)?", image), image


@pytest.mark.parametrize(("name", "folder"), [("mysql", "/var/lib/mysql"), ("redis", "/data")])
def test_data_lives_in_a_named_volume(name: str, folder: str) -> None:
    assert f"{name}:{folder}" in SERVICES[name]["volumes"]
    assert name in COMPOSE["volumes"]


@pytest.mark.parametrize("name", OWN)
def test_own_containers_run_without_privileges(name: str) -> None:
    service = SERVICES[name]
    user = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)

    assert [service["user"]] == user
    assert not user[0].startswith(("0", "root"))
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp:size=256m,mode=1777"]
    assert service["cap_drop"] == ["ALL"]


def test_one_service_builds_the_image_of_all() -> None:
    """Several that build one tag replace each other's image, and each `up --build` recreates them all."""
    assert {SERVICES[name]["image"] for name in OWN} == {"prihod"}
    assert {name: SERVICES[name].get("build") for name in OWN if "build" in SERVICES[name]} == {"web": "."}
    assert {name: SERVICES[name]["pull_policy"] for name in OWN} == {
        "web": "build",
        "web-2": "never",
        "worker": "never",
        "beat": "never",
        "migrate": "never",
    }


@pytest.mark.parametrize("name", ["application_user.sh", "grants.sql"])
def test_mysqls_image_can_source_its_scripts(name: str) -> None:
    """The image runs an executable script in a shell of its own, without the function that this one calls."""
    listed = subprocess.check_output(
        ["git", "ls-files", "--stage", f"deploy/mysql/{name}"], cwd=ROOT, text=True
    )
    assert listed.startswith("100644 ")
    assert "chmod 644" in (ROOT / "deploy/write_env.sh").read_text()


@pytest.mark.parametrize(("name", "port"), [("worker", 9100), ("beat", 9100)])
def test_container_exposes_the_port_that_it_listens_on(name: str, port: int) -> None:
    assert SERVICES[name]["expose"] == [port]
    assert str(SERVICES[name]["environment"]["METRICS_PORT"]) == str(port)
    assert "EXPOSE" not in DOCKERFILE  # it would hold for all of them


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_container_gains_privileges_or_fills_the_disk_with_logs(name: str) -> None:
    service = SERVICES[name]

    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_long_running_service_has_health_check_restart_policy_and_grace_period(name: str) -> None:
    service = SERVICES[name]

    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert service["healthcheck"].keys() >= {"interval", "timeout", "start_period"}
    assert service["restart"] == "unless-stopped"
    assert int(service["stop_grace_period"].removesuffix("s")) >= 10


def test_web_grace_period_exceeds_gunicorns_graceful_timeout() -> None:
    grace_seconds = int(SERVICES["web"]["stop_grace_period"].removesuffix("s"))

    assert grace_seconds > gunicorn.graceful_timeout


def test_second_web_differs_from_the_first_in_its_port_and_profile_only() -> None:
    first, second = dict(SERVICES["web"]), dict(SERVICES["web-2"])
    for key in ("build", "ports", "pull_policy"):
        first.pop(key)

    assert second.pop("profiles") == SERVICES["proxy"]["profiles"] == ["proxy"]
    assert second.pop("pull_policy") == "never"
    assert second == first


def test_health_checks_host_is_allowed() -> None:
    assert "http://127.0.0.1:8000/readyz" in SERVICES["web"]["healthcheck"]["test"][-1]
    assert SERVICES["web"]["environment"]["ALLOWED_HOSTS"].startswith("127.0.0.1,")


@pytest.mark.parametrize("name", sorted(PROCFILE))
def test_process_starts_when_servers_are_healthy_and_migrations_done(name: str) -> None:
    assert SERVICES[name]["depends_on"] == {
        "mysql": {"condition": "service_healthy"},
        "redis": {"condition": "service_healthy"},
        "migrate": {"condition": "service_completed_successfully"},
    }


def test_migrations_run_once_and_end_with_the_database_checks() -> None:
    migrate = SERVICES["migrate"]

    assert migrate["restart"] == "no"
    assert migrate["depends_on"] == {"mysql": {"condition": "service_healthy"}}
    assert migrate["command"][-1].endswith("&& python manage.py check --database default")


def test_mysql_is_durable_and_allows_the_ledgers_triggers() -> None:
    assert set(SERVICES["mysql"]["command"]) >= {
        "--character-set-server=utf8mb4",
        "--innodb-flush-log-at-trx-commit=1",
        "--innodb-redo-log-capacity=1G",
        "--log-bin-trust-function-creators=1",
    }


def test_mysql_health_check_connects_over_the_network() -> None:
    """The temporary server that initializes an empty volume listens on its socket only."""
    assert "--host=127.0.0.1" in SERVICES["mysql"]["healthcheck"]["test"][1]


def test_application_user_gets_its_privileges_from_grants_only() -> None:
    for place in ["deploy/mysql/application_user.sh", "docs/deployment.md"]:
        assert not re.search(r"^GRANT .+ TO 'prihod'@", (ROOT / place).read_text(), re.MULTILINE), place
    mounted = [volume.split(":")[1] for volume in SERVICES["mysql"]["volumes"] if "initdb.d" in volume]
    assert mounted == sorted(mounted)  # the order in which the image runs them: the user first
    assert [Path(file).name for file in mounted] == ["application_user.sh", "grants.sql"]
    for name in PROCFILE:
        assert SERVICES[name]["environment"]["DATABASE_URL"].startswith("mysql://prihod:")


def test_redis_evicts_nothing() -> None:
    command = SERVICES["redis"]["command"]

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_image_contains_only_the_listed_packages() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in {"", "#"}]
    included = {rule.removeprefix("!").rstrip("/") for rule in rules if rule.startswith("!")}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]

    assert rules[0] == "*"
    assert included == {*packages, "manage.py", "requirements"}
    assert all((ROOT / path).exists() for path in included)


@pytest.mark.parametrize(("name", "kind"), [("worker", "worker"), ("beat", "scheduler")])
def test_process_is_healthy_while_its_heartbeat_file_is_recent(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")  # as in a container
    form, command = SERVICES[name]["healthcheck"]["test"]
    assert form == "CMD-SHELL"
    assert str(heartbeat_path(kind)) in command
    file = tmp_path / heartbeat_path(kind).name

    def is_healthy() -> bool:
        here = command.replace("$$", "$").replace(str(heartbeat_path(kind)), str(file))
        return subprocess.run(["sh", "-c", here], check=False, capture_output=True).returncode == 0

    assert not is_healthy()
    file.touch()
    assert is_healthy()
    os.utime(file, (time.time() - 120,) * 2)
    assert not is_healthy()
