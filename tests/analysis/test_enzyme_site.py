"""The example of an active site, on a system that takes seconds."""

import importlib.util
import re
from pathlib import Path

import pytest

from qmmlmm import select, suggest_charge
from systems import alanine_dipeptide, ketosteroid_isomerase

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "enzyme_site.py"
PRINTED = 1e-4  # four decimals of a charge


@pytest.fixture(scope="module")
def example():
    specification = importlib.util.spec_from_file_location("enzyme_site", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:Non-optimal GB parameters")
def test_the_example_runs_and_what_it_prints_adds_up(example, tmp_path, capsys):
    options = ["--directory", str(tmp_path / "site_run"), "--steps", "1", "--settle-steps", "1"]
    example.run_site(alanine_dipeptide.build(), "resname ALA and sidechain", example.parse_options(options))
    printed = capsys.readouterr().out
    assert "1 cut bonds" in printed
    table = re.search(r"charges that change.*?\n(.*?)\nsum +(\S+) +(\S+)\n", printed, re.DOTALL)
    rows = [line.split()[-2:] for line in table.group(1).splitlines()]
    for column in (0, 1):
        total = sum(float(row[column]) for row in rows)
        assert total == pytest.approx(float(table.group(2 + column)), abs=len(rows) * PRINTED)
    assert table.group(2) == table.group(3)
    assert re.search(r"water \(749\) +-?\d", printed)
    assert re.search(r"\n +1 +\d+\.\d +-\d+\.\d +0\.00\n", printed)
    for name in ("interactions.csv", "interactions.png", "trajectory.dcd", "energies.csv", "run.json"):
        assert (tmp_path / "site_run" / name).stat().st_size > 0, name


def test_the_site_is_found_by_the_numbers_of_the_paper(example):
    structure = ketosteroid_isomerase.build(relaxed=True)
    atoms = select(structure.topology, example.SITE)
    residues = list(structure.topology.residues())
    touched = {atom.residue.index for atom in structure.topology.atoms() if atom.index in set(atoms)}
    assert touched == set(ketosteroid_isomerase.SITE_A)
    ligand = {atom.index for atom in residues[ketosteroid_isomerase.SITE_A[2]].atoms()}
    assert ligand <= set(atoms)
    assert suggest_charge(structure.system, atoms) == -1
