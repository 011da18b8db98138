"""What loading Django leaves behind in a process."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.servers import ROOT, free_port
from tests.harness.stack import clean_environment
from tests.markers import sqlite_run_only

STATE = "import gc, config.wsgi; print(gc.isenabled(), gc.get_freeze_count() > 10_000)"


@sqlite_run_only
@pytest.mark.process
def test_loaded_objects_are_not_searched_for_garbage_and_new_ones_are(tmp_path: Path) -> None:
    environment = clean_environment(PORT=str(free_port()), DATA_DIR=str(tmp_path))
    state = subprocess.check_output([sys.executable, "-c", STATE], cwd=ROOT, env=environment, text=True)
    assert state == "True True\n"
