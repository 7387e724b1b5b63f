import numpy as np
import pytest

from triptych.bundle import reader, writer
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


def test_a_file_in_the_way_is_an_error(tmp_path, write_bundle):
    (tmp_path / "b").write_text("a file")
    with pytest.raises(ExportError, match="not a folder"):
        write_bundle(tmp_path / "b", weight(1))
    with pytest.raises(ExportError, match="cannot be written"):
        write_bundle(tmp_path / "b" / "inside", weight(1))
