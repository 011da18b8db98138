"""Each file of the corpus is read as its sidecar says; the texts of `reason` are free."""

import json
from pathlib import Path
from typing import Any

import pytest

from statements.reading import read
from statements.report import as_json

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(CORPUS.glob("*.txt"))
ABOUT_THE_FILE = {"file", "shape", "bytes", "notes"}


def without_reasons(report: dict[str, Any]) -> dict[str, Any]:
    findings = {
        kind: [(finding["code"], finding["line"]) for finding in report[kind]]
        for kind in ("errors", "warnings")
    }
    return {key: value for key, value in report.items() if key not in ABOUT_THE_FILE} | findings


def test_corpus_is_complete() -> None:
    assert len(FILES) == len(list(CORPUS.glob("*.json"))) == 46


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_is_read_as_its_sidecar_says(path: Path) -> None:
    sidecar = json.loads(path.with_suffix(".json").read_text())
    body = path.read_bytes()

    assert len(body) == sidecar["bytes"]
    assert without_reasons(as_json(read(body))) == without_reasons(sidecar)
