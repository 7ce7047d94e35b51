"""The command ``qmmlmm correct``: from files of two legs to a corrected free energy, and what is refused."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from qmmlmm.commands.correct import TOP, LowerSettings
from qmmlmm.commands.main import main
from qmmlmm.free_energy import SwitchingSettings
from systems import cucurbituril, package_data

SYSTEM = """
system.prmtop = "guest.prmtop"
system.coordinates = "guest.inpcrd"
system.no_box = true
system.constraints = "none"
region.name = "guest"
region.select = "resname B2"
region.charge = 0
"""
INPUT = f"""
directory = "binding"

[leg.complex]{SYSTEM}
[leg.solvent]{SYSTEM}
[[level]]
method = "force field"

[[level]]
method = "gfn2-xtb"

[switching]
trajectories = 4
switch_steps = 2
equilibration_steps = 2
steps_between_frames = 1
platform = "Reference"

[lower]
free_energy = -31.2
error = 0.8
"""


@pytest.fixture
def file(tmp_path):
    """The guest of cucurbit[7]uril in vacuum, as both legs."""
    for path, name in zip(package_data.find(*cucurbituril.FILES["solvent"]), ("prmtop", "inpcrd"), strict=True):
        shutil.copy(path, tmp_path / f"guest.{name}")
    found = tmp_path / "binding.toml"
    found.write_text(INPUT, encoding="utf-8")
    return found


def test_a_file_is_checked_and_nothing_is_run(file, capsys):
    assert main(["correct", "--check", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "complex: FF-XTB, region of 30 atoms" in shown
    assert shown.count("note: the equilibration of 0.002 ps is shorter than 3/friction") == 1
    assert not (file.parent / "binding").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:leg .* hardly overlap")
def test_a_file_becomes_a_corrected_free_energy(file, capsys):
    assert main(["correct", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "complex - solvent:" in shown
    assert "corrected: " in shown
    assert (file.parent / "binding" / "report.md").exists()


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('[[level]]\nmethod = "gfn2-xtb"', "", "[[level]] comes twice or more"),
        ("trajectories = 4", "trajectory = 4", "unknown key 'trajectory'"),
        ("error = 0.8", 'second = "water"', "[lower] names the leg 'water'; there are complex, solvent"),
        ("error = 0.8", "error = -1", "error is zero or a number above"),
        ('constraints = "none"', 'constraints = "HBonds"', "flexibleConstraints=True"),
        ("region.charge = 0", "region.charge = 1", "the net charge would change between the levels"),
        ('directory = "binding"', "workers = 0", "workers is a whole number of 1 or more"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(file, capsys, old, new, text):
    content = file.read_text(encoding="utf-8")
    assert old in content
    file.write_text(content.replace(old, new), encoding="utf-8")
    assert main(["correct", str(file), "--check"]) == 1
    assert text in capsys.readouterr().err


def test_the_page_has_the_defaults_of_every_key():
    page = (Path(__file__).parents[2] / "docs" / "binding_corrections.md").read_text(encoding="utf-8")
    content = tomllib.loads(page.partition("```toml")[2].partition("```")[0])
    keys = {field.name for field in fields(SwitchingSettings)} - {"platform"}
    assert set(content["switching"]) == keys
    assert SwitchingSettings(**content["switching"]) == SwitchingSettings()
    assert set(content) <= set(TOP)
    assert LowerSettings(**content["lower"]).first == "complex"
