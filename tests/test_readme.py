"""The README's script runs as it stands, and so do the examples in docstrings."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import qmmlmm
from qmmlmm.errors import QmmlmmWarning
from systems.alanine_dipeptide.builder import EXPLICIT_INPCRD, EXPLICIT_PRMTOP
from systems.package_data import find
from tests.quick_torch import quick_torch

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_scripts_in_the_readme_run(tmp_path, monkeypatch, capsys):
    """The second goes on where the first ends."""
    scripts = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(scripts) == 2
    # The first water of a small box plays the ligand.
    prmtop = find(EXPLICIT_PRMTOP)[0].read_text()
    (tmp_path / "complex.prmtop").write_text(prmtop.replace("ACE ALA NME WAT ", "ACE ALA NME LIG ", 1))
    (tmp_path / "complex.rst7").write_bytes(find(EXPLICIT_INPCRD)[0].read_bytes())
    (tmp_path / "ligand.pt").write_bytes((README.parent / "examples" / "models" / "water.pt").read_bytes())
    monkeypatch.chdir(tmp_path)
    with quick_torch():
        _run_scripts(scripts, capsys)


def _run_scripts(scripts, capsys):
    # QM at a size that a test can afford; the text of the README is what a user would take.
    names = {}
    exec(compile(scripts[0].replace("b3lyp", "hf").replace("6-31g*", "sto-3g"), str(README), "exec"), names)
    printed = capsys.readouterr().out
    assert all(f"'{name}'" in printed for name in ("MM", "ligand/ML", "ligand/QM", "ligand/-ML"))
    with pytest.warns(QmmlmmWarning, match="effective samples"):
        exec(compile(scripts[1], str(README), "exec"), names)
    assert names["weights"].weights.shape == (10,)
    assert "kJ/mol" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", [module.name for module in pkgutil.walk_packages(qmmlmm.__path__, "qmmlmm.") if ".qm." not in module.name]
)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_commands_in_the_readme_are_marked_for_continuous_integration():
    commands = re.findall(r"<!-- command: (\w+) -->\n```bash\n(.+?)\n```", README.read_text())
    assert [name for name, _ in commands] == ["example", "tests"]
