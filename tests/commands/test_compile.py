"""The command that compiles, with a stand-in for the compiler of networks."""

from __future__ import annotations

import shutil

import pytest
import torch

from qmmlmm.commands import compile as compile_command
from qmmlmm.commands.main import main
from qmmlmm.embedding import mesh_kernel
from qmmlmm.embedding.compiled_cache import find_compiled, write_compiled
from qmmlmm.ml.network_file import save_network
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("QMMLMM_CACHE", str(folder))
    mesh_kernel.unavailable_because.cache_clear()
    yield folder
    mesh_kernel.unavailable_because.cache_clear()


@pytest.fixture
def compiled(monkeypatch):
    """Names of the lists of operations that were compiled, with their devices."""
    found = []

    def stand_in(network, name, device, output):
        found.append((name, device))
        return write_compiled({"part": "network", "operations": name}, b"code", output)

    monkeypatch.setattr(compile_command, "compile_network", stand_in)
    return found


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(1)
    settings = ResponseSettings(features=4, layers=1)
    save_network(ResponseNetwork([1, 8, 1], [], settings, members=2), tmp_path / "model.pt")
    return str(tmp_path / "model.pt")


@needs_compiler
def test_without_a_model_the_mesh_alone_is_compiled(cache, capsys):
    assert main(["compile"]) == 0
    (path,) = cache.iterdir()
    assert str(path) in capsys.readouterr().out
    assert mesh_kernel.unavailable_because() == ""


@needs_compiler
@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["surrounded"]),
        (["--embedding", "mechanical"], ["alone"]),
        (["--embedding", "both", "--members"], ["surrounded", "each_surrounded", "alone", "each_alone"]),
    ],
)
def test_what_terms_need_is_compiled(cache, compiled, model, options, names):
    assert main(["compile", model, *options]) == 0
    assert compiled == [(name, "cpu") for name in names]


@needs_compiler
def test_files_for_another_machine_are_installed_with_trust(cache, compiled, model, tmp_path, capsys):
    folder = tmp_path / "files"
    assert main(["compile", model, "--output", str(folder)]) == 0
    files = sorted(str(path) for path in folder.iterdir())
    assert [path.rpartition("/")[2] for path in files] == ["mesh.compiled", "model-surrounded-cpu.compiled"]
    assert mesh_kernel.unavailable_because() != ""
    assert main(["compile", "--install", *files]) == 1
    assert "--trust-code" in capsys.readouterr().err
    assert main(["compile", "--install", *files, "--trust-code"]) == 0
    mesh_kernel.unavailable_because.cache_clear()
    assert mesh_kernel.unavailable_because() == ""
    assert find_compiled({"part": "network", "operations": "surrounded"}).content == b"code"


def test_without_a_compiler_the_command_says_what_to_install(cache, model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert main(["compile", model]) == 1
    assert "needs a C++ compiler: none of g++" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["none.pt"], "no model file 'none.pt'"),
        (["--install", "x.compiled", "--output", "y"], "--install compiles nothing"),
        (["--install", "none.compiled", "--trust-code"], "no compiled file 'none.compiled'"),
    ],
)
def test_arguments_that_do_not_fit_are_an_error(cache, capsys, arguments, text):
    assert main(["compile", *arguments]) == 1
    assert text in capsys.readouterr().err
