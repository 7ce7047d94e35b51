"""Compiled parts are code: where they are looked for, and when they are not used."""

from __future__ import annotations

import os

import pytest

from qmmlmm.embedding.compiled_cache import (
    cache_folder,
    cpp_compiler,
    file_of,
    find_compiled,
    install_compiled,
    processor_kind,
    write_compiled,
)
from qmmlmm.errors import MissingDependencyError, PotentialError

KEY = {"part": "network", "network": "abc", "torch": "2.9"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache that exists only in the test."""
    monkeypatch.setenv("QMMLMM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_folder_is_what_the_user_says_else_that_of_the_desktop(monkeypatch, tmp_path):
    monkeypatch.setenv("QMMLMM_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("QMMLMM_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "qmmlmm"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "qmmlmm"


def test_what_is_written_is_found_by_its_key_and_readable_for_its_owner_alone(cache):
    path = write_compiled(KEY, b"code")
    assert find_compiled(KEY).content == b"code"
    assert path == file_of(KEY)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["network", "torch"])
def test_a_part_for_another_key_is_not_found(cache, name):
    write_compiled(KEY, b"code")
    found = find_compiled({**KEY, name: "other"})
    assert found.content is None
    assert "'qmmlmm compile' makes one" in found.reason


def test_a_file_under_the_name_of_another_key_is_not_used(cache):
    write_compiled(KEY, b"code").rename(file_of({**KEY, "torch": "3"}))
    found = find_compiled({**KEY, "torch": "3"})
    assert found.content is None
    assert "of another key" in found.reason


def test_a_damaged_file_is_not_used(cache):
    path = write_compiled(KEY, b"code")
    data = bytearray(path.read_bytes())
    data[-60] ^= 1
    path.write_bytes(data)
    found = find_compiled(KEY)
    assert found.content is None
    assert "is damaged" in found.reason


@pytest.mark.parametrize("which", ["folder", "file"])
def test_code_that_others_can_change_is_not_used(cache, which):
    path = write_compiled(KEY, b"code")
    (cache if which == "folder" else path).chmod(0o777)
    found = find_compiled(KEY)
    assert found.content is None
    assert "others can write" in found.reason


def test_code_of_another_user_is_not_used(cache, monkeypatch):
    write_compiled(KEY, b"code")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert "belongs to another user" in find_compiled(KEY).reason


def test_nothing_is_written_where_others_can_write(cache):
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.raises(PotentialError, match="others can write .* Set QMMLMM_CACHE"):
        write_compiled(KEY, b"code")


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("QMMLMM_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(PotentialError, match="cannot be written"):
        write_compiled(KEY, b"code")


def test_a_file_from_elsewhere_is_taken_only_with_trust(cache, tmp_path):
    path = write_compiled(KEY, b"code", tmp_path / "other.compiled")
    assert find_compiled(KEY).content is None
    with pytest.raises(PotentialError, match="--trust-code, in Python trust_code=True"):
        install_compiled(path, trust_code=False)
    assert find_compiled(KEY).content is None
    install_compiled(path, trust_code=True)
    assert find_compiled(KEY).content == b"code"


def test_what_is_no_compiled_part_is_not_taken(cache, tmp_path):
    with pytest.raises(FileNotFoundError, match="no compiled file"):
        install_compiled(tmp_path / "none", trust_code=True)
    (tmp_path / "text").write_text("text")
    with pytest.raises(PotentialError, match="is no compiled file of qmmlmm, or is damaged"):
        install_compiled(tmp_path / "text", trust_code=True)


def test_the_kind_of_processor_is_the_same_each_time():
    assert processor_kind("cpu") == processor_kind("cpu") != ""


@pytest.mark.parametrize(("variable", "text"), [(None, "none of g++"), ("nothing-here", "CXX='nothing-here'")])
def test_a_missing_compiler_is_named(monkeypatch, tmp_path, variable, text):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    if variable is not None:
        monkeypatch.setenv("CXX", variable)
    with pytest.raises(MissingDependencyError, match="needs a C") as error:
        cpp_compiler()
    assert text in str(error.value)
    assert "install g++" in str(error.value)
