"""The test of the installed tblite: it runs in a child process, once for a build, and gives messages."""

from __future__ import annotations

import importlib.metadata
import json

import numpy as np
import pytest

from qmmlmm import XTBPotential
from qmmlmm.errors import EvaluationError, MissingDependencyError, PotentialError
from qmmlmm.xtb import container_check, tblite_container
from qmmlmm.xtb.container_check import LIMIT, require_tblite
from qmmlmm.xtb.container_trial import largest_deviation

packed = tblite_container._packed


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Forget in this process and on disk that the build has passed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    container_check._check_build.cache_clear()
    yield tmp_path / "qmmlmm"
    container_check._check_build.cache_clear()


def with_version(monkeypatch, version):
    found = importlib.metadata.version

    def version_of(name):
        if name != "tblite":
            return found(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", version_of)


def test_the_installed_tblite_passes_and_this_is_remembered(fresh, monkeypatch):
    require_tblite()
    (record,) = fresh.iterdir()
    content = json.loads(record.read_text())
    assert content["tblite"] == importlib.metadata.version("tblite")
    assert content["deviation"] < LIMIT
    container_check._check_build.cache_clear()
    monkeypatch.setattr(container_check, "TRIAL", "raise RuntimeError('tested again')")
    require_tblite()


def test_another_build_is_tested_again(fresh, tmp_path):
    library = tmp_path / "library.so"
    library.write_bytes(b"one")
    first = container_check.cache_file("0.8.0", library)
    library.write_bytes(b"another")
    assert container_check.cache_file("0.8.0", library) != first


def test_without_a_directory_for_the_record_the_test_is_repeated_and_passes(fresh, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    require_tblite()


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        ("import os; os.abort()", r"its test crashed \(SIGABRT\)"),
        ("import ctypes; ctypes.string_at(0)", r"its test crashed \(SIGSEGV\)"),
        ("raise ImportError('libgomp.so.1 is missing')", "ended with 'ImportError: libgomp.so.1 is missing'.*libgomp1"),
        ("print(3e-4)", "deviate by 3.0e-04"),
        ("print('nan')", "deviate by nan"),
    ],
    ids=["abort", "crash", "exception", "wrong numbers", "no number"],
)
def test_a_build_that_does_not_work_is_a_message_and_no_crash(fresh, monkeypatch, trial, message):
    monkeypatch.setattr(container_check, "TRIAL", trial)
    with pytest.raises(PotentialError, match="does not work with qmmlmm.*" + message):
        require_tblite()
    assert not fresh.exists()


def test_a_test_that_does_not_end_is_a_message(fresh, monkeypatch):
    monkeypatch.setattr(container_check, "TRIAL", "import time; time.sleep(60)")
    monkeypatch.setattr(container_check, "SECONDS", 0.2)
    with pytest.raises(PotentialError, match="the test of tblite .* could not run"):
        require_tblite()


@pytest.mark.parametrize("version", ["0.7.1", "0.9.0", "1.0", "0.8rc"])
def test_another_version_is_not_used(monkeypatch, version):
    with_version(monkeypatch, version)
    message = f"needs tblite 0.8, and {version} is installed: pip install 'tblite"
    with pytest.raises(MissingDependencyError, match=message):
        XTBPotential()


def test_without_tblite_the_message_says_how_to_install_it(monkeypatch):
    with_version(monkeypatch, None)
    with pytest.raises(MissingDependencyError, match=r"not installed: pip install 'tblite>=0.8,<0.9'.*qmmlmm\[xtb\]"):
        XTBPotential()


def test_the_trial_compares_with_tblites_own_field():
    assert largest_deviation() < LIMIT


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("_packed", lambda potential: tuple(1.001 * part for part in packed(potential))),
        ("_packed", lambda potential: (packed(potential)[0], -packed(potential)[1], packed(potential)[2])),
        ("PACKED", ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))),
    ],
    ids=["size", "sign of the gradient", "order of quadrupoles"],
)
def test_the_trial_finds_wrong_numbers(monkeypatch, name, fault):
    monkeypatch.setattr(tblite_container, name, fault)
    assert largest_deviation() > 1e3 * LIMIT


@pytest.mark.parametrize(
    ("name", "fault", "message"),
    [
        ("BASE", "__tblite_elsewhere_MOD_", "does not export __tblite_elsewhere_MOD_variable_info"),
        ("TABLE_WORDS", 9, "has . of 4 procedures"),
    ],
)
def test_a_library_that_lacks_what_is_needed_is_an_error(monkeypatch, name, fault, message):
    monkeypatch.setattr(tblite_container, name, fault)
    with pytest.raises(PotentialError, match=message):
        tblite_container._Library()


def structure_of(*shapes, gap=0):
    """Return memory with descriptors of arrays of zeros, and these arrays."""
    memory, arrays = b"\0" * 8, []
    for shape in shapes:
        array = np.zeros(shape, order="F")
        arrays.append(array)
        memory += tblite_container.HEADER.pack(array.ctypes.data, -1, 8, 0, len(shape), 3, 0, 8)
        for size, stride in zip(shape, np.cumprod([1, *shape[:-1]]), strict=True):
            memory += tblite_container.AXIS.pack(stride, 1, size)
        memory += b"\0" * gap
    return np.frombuffer(memory, dtype=np.uint8).copy(), arrays


MULTIPOLES = (2, 1), (5, 1), (3, 2, 1), (6, 2, 1)


def test_arrays_are_found_by_their_order_also_before_remains_of_others():
    memory, arrays = structure_of((2, 1), *MULTIPOLES, *MULTIPOLES[2:])
    views = tblite_container._MultipoleArrays(len(memory), 1, 2).views(memory.ctypes.data)
    for view, k in zip(views, (1, 3, 4), strict=True):
        view += 1.0
        assert arrays[k].all()
    assert not arrays[0].any()
    assert not arrays[5].any()


@pytest.mark.parametrize(
    ("shapes", "gap", "message"),
    [
        (MULTIPOLES[1:], 0, "not in their expected order"),
        (((5, 1), *MULTIPOLES[2:]), 0, "not in their expected order"),
        (MULTIPOLES, 8, "not next to each other"),
    ],
)
def test_arrays_in_another_order_are_an_error(shapes, gap, message):
    memory, _ = structure_of(*shapes, gap=gap)
    with pytest.raises(EvaluationError, match=message):
        tblite_container._MultipoleArrays(len(memory), 1, 2).views(memory.ctypes.data)
