"""`make audit` reports success only if its source finds a known-vulnerable package."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.harness.servers import ROOT

FINDS_THE_CANARY = 'case "$*" in *requirements*) {}; ;; *) echo PYSEC-2019-14; exit 1; ;; esac'


@pytest.mark.parametrize(
    ("pip_audit", "status"),
    [
        (FINDS_THE_CANARY.format("exit 0"), 0),
        (FINDS_THE_CANARY.format("echo CVE-2026-1; exit 1"), 1),
        ("echo No known vulnerabilities found; exit 0", 2),  # as with a mirror that has no JSON API
        ("echo ConnectionError; exit 1", 2),
    ],
)
def test_audit_passes_only_if_the_source_finds_the_canary(
    pip_audit: str, status: int, tmp_path: Path
) -> None:
    program = tmp_path / "pip-audit"
    program.write_text(f"#!/bin/sh\n{pip_audit}\n")
    program.chmod(0o755)
    environment = os.environ | {"PIP_AUDIT": str(program)}
    done = subprocess.run([ROOT / ".ci/audit"], env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("NOT audited" in done.stderr) == (status == 2)
