"""Content hashes change with content and with nothing else."""

import hashlib
import json
import os
from pathlib import Path

from loraland_models import revisions

REPORTS: list[str] = []


def test_hash_is_noted_and_believed_while_the_file_stays(tmp_path: Path) -> None:
    """The second reading comes from the note."""
    file, notes = tmp_path / "weights", tmp_path / "notes"
    file.write_bytes(b"abc")
    revisions.noted_hash(file, notes, REPORTS.append)
    [note] = notes.iterdir()
    note.write_text(json.dumps(json.loads(note.read_text()) | {"sha256": "noted"}))

    found = revisions.noted_hash(file, notes, REPORTS.append)

    assert found == "noted"


def test_hash_is_taken_anew_when_the_file_changed(tmp_path: Path) -> None:
    """Same size, another time: the note is not believed."""
    file, notes = tmp_path / "weights", tmp_path / "notes"
    file.write_bytes(b"abc")
    revisions.noted_hash(file, notes, REPORTS.append)
    file.write_bytes(b"abd")
    os.utime(file, ns=(1, 1))

    found = revisions.noted_hash(file, notes, REPORTS.append)

    assert hashlib.sha256(b"abd").hexdigest() == found


def test_hash_needs_no_place_for_notes(tmp_path: Path) -> None:
    """A cache that cannot be written costs time only."""
    file = tmp_path / "weights"
    file.write_bytes(b"abc")

    found = revisions.noted_hash(file, file / "no-folder", REPORTS.append)

    assert hashlib.sha256(b"abc").hexdigest() == found


def test_revision_of_files_ignores_their_order() -> None:
    """A listing in another order is the same model."""
    files = [("a", 1, "x"), ("b", 2, "y")]

    assert revisions.of_files(files) == revisions.of_files(reversed(files))
    assert revisions.of_files(files) != revisions.of_files(files[:1])
