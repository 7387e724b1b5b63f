import os
import shutil
import tempfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import triptych
from triptych.bundle import digest, reader
from triptych.bundle.manifest import MANIFEST, WEIGHTS
from triptych.bundle.writer import serialise
from triptych.errors import BundleNotFound, BundleRefused

FILES = (MANIFEST, WEIGHTS, "decode.onnx")


def test_a_whole_bundle_is_read(by_hand):
    bundle = reader.read(by_hand)
    assert set(bundle.graphs) == {"decode"}
    assert bundle.manifest.files[WEIGHTS].size_bytes == (by_hand / WEIGHTS).stat().st_size
    with triptych.load(by_hand) as engine:
        assert engine.run("decode", {"z": [[1.0, 0.0, 0.0]]})["x"].tolist() == [[0.0, 1.0, 2.0, 3.0]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_refused_by_name(by_hand, data):
    file = by_hand / data.draw(st.sampled_from(FILES))
    before = file.read_bytes()
    position, bit = data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(0, 7))
    after = bytearray(before)
    after[position] ^= 1 << bit
    file.write_bytes(after)
    try:
        with pytest.raises(BundleRefused, match=file.name):
            reader.read(by_hand)
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: data[:0]])
def test_a_file_cut_or_lengthened_is_refused_by_name(by_hand, name, change):
    (by_hand / name).write_bytes(change((by_hand / name).read_bytes()))
    with pytest.raises(BundleRefused, match=name):
        reader.read(by_hand)


def test_a_missing_file_is_refused_by_name(by_hand):
    (by_hand / "decode.onnx").unlink()
    with pytest.raises(BundleRefused, match=r"decode\.onnx: it is missing"):
        reader.read(by_hand)


def test_a_file_the_manifest_does_not_list_is_refused_by_name(by_hand):
    (by_hand / "more.bin").write_bytes(b"1")
    with pytest.raises(BundleRefused, match=r"more\.bin"):
        reader.read(by_hand)


def test_a_link_out_of_the_folder_is_refused(by_hand, tmp_path):
    shutil.move(by_hand / WEIGHTS, tmp_path / "elsewhere")
    (by_hand / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleRefused, match=WEIGHTS):
        reader.read(by_hand)


def test_a_linked_manifest_is_refused(by_hand, tmp_path):
    shutil.move(by_hand / MANIFEST, tmp_path / "elsewhere")
    (by_hand / MANIFEST).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleRefused, match=MANIFEST):
        reader.read(by_hand)


def test_an_engine_goes_on_with_the_bytes_it_checked_when_its_bundle_is_replaced(by_hand, write_bundle):
    with triptych.load(by_hand) as before:  # its graphs are opened only after the bundle is gone
        write_bundle(by_hand, np.ones((3, 4), np.float32))
        with triptych.load(by_hand) as after:
            assert before.run("decode", {"z": [[1.0, 0.0, 0.0]]})["x"].tolist() == [[0.0, 1.0, 2.0, 3.0]]
            assert after.run("decode", {"z": [[1.0, 0.0, 0.0]]})["x"].tolist() == [[1.0] * 4]


def test_a_bundle_replaced_while_it_is_read_is_read_again(by_hand, write_bundle, monkeypatch):
    check_names, replaced = reader.check_names, []

    def replace_once(folder, manifest):
        if not replaced:
            replaced.append(write_bundle(by_hand, np.ones((3, 4), np.float32)))
        check_names(folder, manifest)

    monkeypatch.setattr(reader, "check_names", replace_once)
    assert (reader.read(by_hand).weights.array(*reader.read(by_hand).weights.extents.values()) == 1).all()


@pytest.mark.parametrize("place", ["check_names", "iterdir"])
def test_a_bundle_that_is_away_between_two_renames_is_read_again(by_hand, write_bundle, monkeypatch, place):
    """`writer.replace` moves the earlier bundle aside, and then the new one to its place."""
    new = write_bundle(by_hand.with_name("new"), np.ones((3, 4), np.float32))
    owner = {"check_names": reader, "iterdir": Path}[place]
    before = getattr(owner, place)

    def move_aside(*arguments):
        if new.exists() and by_hand.exists():
            by_hand.rename(by_hand.with_name("old"))
        return before(*arguments)

    monkeypatch.setattr(owner, place, move_aside)
    monkeypatch.setattr(reader, "sleep", lambda _: new.rename(by_hand))
    weights = reader.read(by_hand).weights
    assert (weights.array(*weights.extents.values()) == 1).all()


def test_a_bundle_that_is_removed_while_it_is_read_is_not_found(by_hand, monkeypatch):
    check_names = reader.check_names

    def remove(folder, manifest):
        shutil.rmtree(folder)
        check_names(folder, manifest)

    monkeypatch.setattr(reader, "check_names", remove)
    with pytest.raises(BundleNotFound):
        reader.read(by_hand)


@pytest.mark.parametrize("mode", [0o444, 0o333])
def test_a_folder_that_may_not_be_entered_or_listed_is_refused_by_name(write_bundle, mode):
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as outside:
        os.chmod(outside, 0o755)
        folder = write_bundle(Path(outside) / "b", np.ones((3, 4), np.float32))
        folder.chmod(mode)
        if user == 0:  # who may do anything
            os.seteuid(65_534)
        try:
            with pytest.raises(BundleRefused, match=rf"{folder}.*: it cannot be read \(Permission denied\)"):
                reader.read(folder)
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


def test_no_folder_and_an_empty_folder_are_not_found(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", __file__, None, 5, "x" * 5000, "\0"):
        with pytest.raises(BundleNotFound):
            reader.read(path)


def test_an_unknown_format_version_is_refused_with_the_known_one(by_hand, reseal):
    reseal(by_hand, lambda document: document.update(format_version=2))
    with pytest.raises(BundleRefused, match="version 2 is unknown; valid: 1"):
        reader.read(by_hand)


def test_a_version_that_is_not_that_of_the_content_is_refused_with_both(by_hand, reseal):
    version = reader.read(by_hand).manifest.version
    reseal(by_hand, lambda document: document.update(version="0123456789ab"))
    with pytest.raises(BundleRefused, match=rf"manifest\.json: its version is 0123456789ab, .* {version}"):
        reader.read(by_hand)


def test_an_unknown_field_in_the_manifest_is_refused(by_hand, reseal):
    reseal(by_hand, lambda document: document.update(surprise=1, digest=document.pop("digest")))
    with pytest.raises(BundleRefused, match="surprise"):
        reader.read(by_hand)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "", ".", "a/b", "x" * 300, "a\0b", "a\nb"])
def test_a_listed_name_that_leaves_the_folder_is_refused(by_hand, reseal, name):
    reseal(by_hand, lambda document: document["files"].update({name: document["files"][WEIGHTS]}))
    with pytest.raises(BundleRefused, match="it lists"):
        reader.read(by_hand)


@pytest.mark.parametrize(
    "external",
    [
        {"location": "../model.safetensors"},
        {"location": "/etc/passwd"},
        {"location": MANIFEST},
        {"offset": 0},
        {"length": 4},
        {"offset": 10**12},
        {"offset": -1},
    ],
)
def test_a_graph_that_points_at_no_tensor_of_the_weights_is_refused(tmp_path, write_bundle, external):
    folder = write_bundle(tmp_path / "b", np.ones((3, 4), np.float32), **external)
    with pytest.raises(BundleRefused, match=r"decode\.onnx: weight points at"):
        reader.read(folder)


@pytest.mark.parametrize("version", [21, 2**62, -1])
def test_a_graph_in_other_operator_sets_than_its_manifest_says_is_refused(by_hand, rewrite, version):
    """OpenVINO does not come back from one of version 2**62."""

    def change(proto):
        proto.opset_import[0].version = version

    rewrite(by_hand, "decode.onnx", change)
    with pytest.raises(BundleRefused, match=r"decode\.onnx: it is in"):
        reader.read(by_hand)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(("name", "match"), [("decode.onnx", "larger than"), ("README.md", "SHA-256")])
def test_a_file_of_any_length_takes_no_memory(by_hand, reseal, name, match):
    (by_hand / name).touch()
    os.truncate(by_hand / name, 300_000_000)  # a hole, so that it takes no disk either
    record = {"size_bytes": 300_000_000, "sha256": "0" * 64}
    reseal(by_hand, lambda document: document["files"].update({name: record}))
    tracemalloc.start()
    with pytest.raises(BundleRefused, match=match):
        reader.read(by_hand)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("field", [b"\x2a\x00", b"\x08\x01"])
def test_a_graph_of_nothing_but_small_fields_is_read_in_seconds(field):
    from triptych.bundle import wire

    assert not list(wire.external_tensors(wire.field(7, field * (reader.MAX_GRAPH_BYTES // 2))))


def test_a_key_twice_in_a_manifest_is_refused(by_hand):
    """Readers in other languages may take the other one."""
    sealed = (by_hand / MANIFEST).read_bytes()
    head = digest.split(sealed)[1][: -len(digest.TAIL)]
    twice = head.replace(b'"family": "vae"', b'"family": "gan",\n  "family": "vae"')
    (by_hand / MANIFEST).write_bytes(digest.seal(twice + digest.TAIL))
    with pytest.raises(BundleRefused, match="'family' twice"):
        reader.read(by_hand)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_graph_or_refused(data):
    from triptych.bundle.wire import external_tensors

    with suppress(ValueError):
        assert isinstance(list(external_tensors(data)), list)


def test_a_manifest_is_covered_by_its_own_digest(by_hand):
    data = (by_hand / MANIFEST).read_bytes()
    carried, covered = digest.split(data)
    assert digest.is_intact(data)
    assert carried.decode() == digest.sha256(covered) == reader.read(by_hand).manifest.digest
    assert serialise(msgspec.structs.replace(reader.read(by_hand).manifest, digest="")) == data
