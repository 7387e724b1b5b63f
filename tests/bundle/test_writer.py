import shutil

import numpy as np
import pytest

from triptych.bundle import reader, writer
from triptych.bundle.manifest import MANIFEST, WEIGHTS
from triptych.errors import ExportError


def weight(value):
    return np.full((3, 4), value, np.float32)


def test_a_bundle_replaces_a_bundle_whole(tmp_path, write_bundle):
    first = reader.read(write_bundle(tmp_path / "b", weight(1))).manifest.version
    second = reader.read(write_bundle(tmp_path / "b", weight(2))).manifest.version
    assert first != second
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_the_version_names_the_content(tmp_path, write_bundle):
    one, two = (reader.read(write_bundle(tmp_path / name, weight(1))).manifest for name in ("one", "two"))
    assert one.version == two.version
    assert len(one.version) == 12


def test_an_export_that_fails_leaves_the_old_bundle_and_no_scraps(tmp_path, write_bundle):
    before = reader.read(write_bundle(tmp_path / "b", weight(1))).manifest

    def fail(folder):
        (folder / "half").write_bytes(b"1")
        raise ExportError("does not work")

    with pytest.raises(ExportError):
        writer.write(tmp_path / "b", fail)
    assert reader.read(tmp_path / "b").manifest == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_folder_that_is_no_bundle_is_never_overwritten(tmp_path, write_bundle):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="not a bundle"):
        write_bundle(tmp_path / "b", weight(1))
    assert (tmp_path / "b" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "manifest",
    [
        b'{"name": "my app", "icons": []}',
        b'{"format_version": 1}',
        b'{"files": {"thesis.txt": {}}}',
        b'{"format_version": 1, "files": ["thesis.txt"]}',
        b'["format_version", "files"]',
        b"\xff not JSON",
        b"[" * 100_000,
    ],
)
def test_a_manifest_of_something_else_makes_no_folder_a_bundle(tmp_path, write_bundle, manifest):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / MANIFEST).write_bytes(manifest)
    (tmp_path / "b" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match=r"not a bundle's: 'manifest\.json'"):
        write_bundle(tmp_path / "b", weight(1))
    assert (tmp_path / "b" / MANIFEST).read_bytes() == manifest
    assert (tmp_path / "b" / "thesis.txt").read_text() == "years of work"


def add_file(folder):
    (folder / "own").write_text("mine")


def add_folder(folder):
    (folder / "own").mkdir()
    (folder / "own" / "notes.txt").write_text("mine")


def add_folder_of_a_listed_name(folder):
    """The manifest lists it as a file."""
    (folder / "decode.onnx").unlink()
    (folder / "decode.onnx").mkdir()
    (folder / "decode.onnx" / "notes.txt").write_text("mine")


def add_link(folder):
    (folder / "own").symlink_to(folder.parent)


@pytest.mark.parametrize("add", [add_file, add_folder, add_folder_of_a_listed_name, add_link])
def test_what_lies_beside_the_files_of_a_bundle_is_never_removed(tmp_path, write_bundle, add):
    folder = write_bundle(tmp_path / "b", weight(1))
    add(folder)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    with pytest.raises(ExportError, match=r"not a bundle's: '(own|decode\.onnx)'"):
        write_bundle(folder, weight(2))
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_comes_beside_the_files_of_a_bundle_while_another_is_made_is_not_removed(tmp_path, write_bundle):
    folder = write_bundle(tmp_path / "b", weight(1))

    def fill(scratch):
        shutil.copytree(folder, scratch, ignore=shutil.ignore_patterns(MANIFEST), dirs_exist_ok=True)
        manifest = reader.read(folder).manifest
        add_file(folder)
        return manifest

    with pytest.raises(ExportError, match="not a bundle's: 'own'"):
        writer.write(folder, fill)
    assert (folder / "own").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_damaged_bundle_is_replaced(tmp_path, write_bundle):
    folder = write_bundle(tmp_path / "b", weight(1))
    (folder / WEIGHTS).write_bytes(b"cut")
    (folder / "decode.onnx").unlink()
    data = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(data.replace(b"by-hand", b"changed"))
    assert (reader.read(write_bundle(folder, weight(2))).weights.data[-4:]) == weight(2).tobytes()[-4:]


def test_a_file_in_the_way_is_an_error(tmp_path, write_bundle):
    (tmp_path / "b").write_text("a file")
    with pytest.raises(ExportError, match="not a folder"):
        write_bundle(tmp_path / "b", weight(1))
    with pytest.raises(ExportError, match="cannot be written"):
        write_bundle(tmp_path / "b" / "inside", weight(1))
