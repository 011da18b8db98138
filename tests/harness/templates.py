"""Empty, migrated databases: made once per run of the suite, copied for each stack and each worker."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import cache, partial
from pathlib import Path

from tests.harness.copying import copy_database
from tests.harness.servers import ROOT, MariaDB, MySQL
from tests.harness.stack import clean_environment

FOLDER = "TEST_TEMPLATES"  # in the environment, so that all processes of a run share the templates
SQLITE_FILE = "prihod.sqlite3"
UNTOUCHED = "prihod_untouched"  # on a server, a second copy of the database that no test writes to
SERVERS: dict[str, type[MariaDB] | type[MySQL]] = {"mariadb": MariaDB, "mysql": MySQL}


@cache
def _deleted_at_exit() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="prihod-", ignore_cleanup_errors=True)


def share() -> None:
    """Let the processes that this one starts use its templates."""
    os.environ.setdefault(FOLDER, _deleted_at_exit().name)


def template(database: str, make: Callable[[Path], None] | None = None, *, root: Path = ROOT) -> Path:
    """Return the files of a migrated database; the first process of a run that asks makes them.

    For "sqlite" they are a folder with SQLITE_FILE, for "mariadb" and "mysql" the server's data folder.
    `make` replaces the command that migrates. `root` is a clone of this project, such as an older revision.
    """
    share()
    shared = Path(os.environ[FOLDER])
    name = database if root == ROOT else f"{database}-{root.name}"
    finished = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            part = shared / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            (make or _maker(database, root))(part)
            part.rename(finished)
    return finished


def empty_template(database: str) -> Path:
    """Return the data folder of a "mariadb" or "mysql" server whose database has no tables."""
    return template(f"{database}_empty", partial(_empty_server, SERVERS[database]))


def _empty_server(kind: type[MariaDB] | type[MySQL], folder: Path) -> None:
    with kind() as server:
        server.stop()
        shutil.move(server.folder / "data", folder)


def _maker(database: str, root: Path) -> Callable[[Path], None]:
    return partial(_sqlite, root) if database == "sqlite" else partial(_server, SERVERS[database], root)


def _sqlite(root: Path, folder: Path) -> None:
    folder.mkdir()
    _migrate(root, DATABASE_URL=f"sqlite:///{folder / SQLITE_FILE}", DATA_DIR=str(folder))


def _server(kind: type[MariaDB] | type[MySQL], root: Path, folder: Path) -> None:
    with kind() as server:
        _migrate(root, DATABASE_URL=server.url)
        with closing(server.session()) as session, session.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {UNTOUCHED}")
            copy_database(cursor, "prihod", UNTOUCHED)
            session.commit()
        server.stop()
        shutil.move(server.folder / "data", folder)


def _migrate(root: Path, **settings: str) -> None:
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    # Development settings: those of production refuse to start without secrets.
    subprocess.run(command, cwd=root, env=clean_environment(**settings), check=True)
