"""Templates of ``qmmlmm new`` and the tables of docs/run.md: made of the records that check the files."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import openmm
import pytest
from openmm import app

from qmmlmm.commands import templates
from qmmlmm.commands.correct import TOP as CORRECT_TOP
from qmmlmm.commands.hamiltonian_input import RegionSettings, TermSettings
from qmmlmm.commands.key_reference import keys_of, with_tables
from qmmlmm.commands.learn_input import TOP as LEARN_TOP
from qmmlmm.commands.learn_input import read_loop
from qmmlmm.commands.main import main
from qmmlmm.commands.measures import Duration
from qmmlmm.commands.reaction_input import TOP as REACTION_TOP
from qmmlmm.commands.reaction_input import (
    FrequenciesSettings,
    MovingSettings,
    PathSettings,
    ReactionPlatform,
    read_reaction,
)
from qmmlmm.commands.run_input import TOP as RUN_TOP
from qmmlmm.commands.run_input import read_run
from qmmlmm.commands.run_keys import run_keys
from qmmlmm.commands.run_settings import (
    DynamicsSettings,
    EquilibrateSettings,
    HeatSettings,
    HoldSettings,
    MinimiseSettings,
    OutputSettings,
    PlatformSettings,
    RestraintSettings,
)
from qmmlmm.commands.scan_input import AxisSettings, ScanSettings
from qmmlmm.commands.spectrum import TOP as SPECTRUM_TOP
from qmmlmm.commands.spectrum import SpectrumSettings
from qmmlmm.commands.system_input import SystemSettings
from qmmlmm.commands.umbrella_settings import ProfileSettings, UmbrellaSettings
from qmmlmm.preparation import Site, prepared_files
from qmmlmm.preparation.prepared_files import run_input_text
from tests.commands.waters import write_waters

ROOT = Path(__file__).resolve().parents[2]
RECORDS = (
    SystemSettings, RegionSettings, TermSettings, MinimiseSettings, HeatSettings, EquilibrateSettings,
    DynamicsSettings, HoldSettings, RestraintSettings, OutputSettings, PlatformSettings, SpectrumSettings,
    MovingSettings, AxisSettings, ScanSettings, PathSettings, FrequenciesSettings, ReactionPlatform,
    UmbrellaSettings, ProfileSettings,
)  # fmt: skip
REQUIRED = {
    DynamicsSettings: {"length": 10},
    HoldSettings: {"select": "all"},
    RestraintSettings: {"variable": "x", "centre": 1, "force_constant": 1},
    SystemSettings: {"prepared": "prepared"},
    RegionSettings: {"select": "all"},
    AxisSettings: {"variable": "x", "centres": (0.1,)},
    ScanSettings: {"variable": "x", "centres": (0.1,)},
    UmbrellaSettings: {"variable": "x", "force_constant": 1.0},
}
COMMENTED = re.compile(r"^#(?=\w+ = |\[)", re.MULTILINE)


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A folder with what ``qmmlmm prepare`` leaves, of two waters of which one is the ligand; the working directory."""
    write_waters(tmp_path / "waters.pdb", box=2.0)
    pdb = app.PDBFile(str(tmp_path / "waters.pdb"))
    force_field = app.ForceField("amber14/tip3p.xml")
    system = force_field.createSystem(pdb.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(pdb.positions)
    next(pdb.topology.residues()).name = "LIG"
    folder = tmp_path / "prepared"
    folder.mkdir()
    with (folder / "topology.cif").open("w") as file:
        app.PDBxFile.writeFile(pdb.topology, pdb.positions, file, keepIds=True)
    for name, content in (("system.xml", system), ("state.xml", context.getState(positions=True))):
        (folder / name).write_text(openmm.XmlSerializer.serialize(content))
    (folder / "site.toml").write_text("[regions.ligand]\natoms = [0, 1, 2]\ncharge = 0\nmultiplicity = 1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", templates.KINDS)
def test_a_template_is_written_once_and_has_every_table_of_its_reader(prepared, capsys, kind):
    assert main(["new", "mine", "--kind", kind]) == 0
    assert f"qmmlmm {templates.first_command(kind)} mine.toml" in capsys.readouterr().out
    text = (prepared / "mine.toml").read_text()
    assert main(["new", "mine.toml", "--kind", kind]) == 1
    assert "exists already; name another file" in capsys.readouterr().err
    assert (prepared / "mine.toml").read_text() == text
    known = {
        "run": RUN_TOP,
        "learn": LEARN_TOP,
        "spectrum": SPECTRUM_TOP,
        "correct": CORRECT_TOP,
        "reaction": REACTION_TOP,
    }[kind]
    mentioned = set(re.findall(r"^#?(\w+) = ", text, re.MULTILINE))
    mentioned |= {name.split(".")[0] for name in re.findall(r"^#?\[+([\w.]+)\]+$", text, re.MULTILINE)}
    assert set(known) - mentioned <= {"parameters"}
    if kind != "run":
        # Those of the single keys are checked by their readers; all of them together say too much.
        assert set(tomllib.loads(text)) <= set(known)


def test_the_template_of_a_run_is_read_by_its_reader(prepared):
    (prepared / "mine.toml").write_text(templates.template("run", "mine.toml"))
    given = read_run(prepared / "mine.toml")
    assert [stage.name for stage in given.stages] == ["heat", "equilibrate", "production"]
    # The thermostat of heating is strong, or the temperature stays behind.
    assert [stage.friction for stage in given.stages] == [10.0, 1.0, 1.0]
    assert list(given.system.terms) == ["ligand/XTB"]
    assert given.production.steps == 20000


def site(multiplicity):
    return Site((0, 1, 2), 0, multiplicity, 10, 0.0, (), (), (), ())


@pytest.mark.parametrize(("tblite", "level"), [(True, "ligand/XTB"), (False, "ligand/QM")])
def test_the_file_that_prepare_writes_is_read_beside_what_it_wrote(prepared, monkeypatch, tblite, level):
    monkeypatch.setattr(prepared_files, "find_spec", lambda name: object() if tblite else None)
    path = prepared / "prepared" / "run.toml"
    path.write_text(run_input_text({"ligand": site(1), "site": site(None)}))
    given = read_run(path)
    assert list(given.system.terms) == [level]
    assert [(stage.name, stage.steps) for stage in given.stages] == [("heat", 2000), ("production", 2000)]
    assert given.stages[0].system is given.plain
    assert given.directory == prepared / "prepared" / "run"


@pytest.mark.parametrize("sites", [{}, {"site": site(None)}])
def test_without_a_region_that_is_known_prepare_writes_a_run_of_the_force_field(prepared, sites):
    path = prepared / "prepared" / "run.toml"
    path.write_text(run_input_text(sites))
    given = read_run(path)
    assert given.system is given.plain
    assert given.production.step == 0.001


def test_the_template_of_a_loop_is_read_by_its_reader(prepared):
    (prepared / "mine.toml").write_text(templates.template("learn", "mine.toml"))
    assert read_loop(prepared / "mine.toml").settings.force_error == 30.0


def test_the_template_of_a_correction_is_read_by_its_reader(prepared, capsys):
    text = templates.template("correct", "mine.toml")
    for leg in ("complex", "solvent"):
        text = text.replace(f'prmtop = "{leg}.prmtop"', 'pdb = "waters.pdb"\nflexible_constraints = true')
        text = text.replace(f'coordinates = "{leg}.rst7"', 'force_field = ["amber14/tip3p.xml"]')
    text = text.replace('select = "resname LIG"', "atoms = [0, 1, 2]")
    (prepared / "mine.toml").write_text(text)
    assert main(["correct", "mine.toml", "--check"]) == 0
    assert "complex: " in capsys.readouterr().out


def test_the_template_of_a_reaction_is_read_by_its_reader(prepared):
    (prepared / "mine.toml").write_text(templates.template("reaction", "mine.toml"))
    given = read_reaction(prepared / "mine.toml")
    assert given.scan is not None
    assert [len(axis.centres) for axis in given.scan.axes] == [11]
    assert given.counts == {"all": 6, "moving": 3, "held": 0}


def test_the_template_of_a_spectrum_is_read_by_its_reader(prepared, capsys):
    (prepared / "mine.toml").write_text(templates.template("spectrum", "mine.toml"))
    # The trajectory is the last that is read.
    assert main(["spectrum", "mine.toml", "--quiet"]) == 1
    assert "run/production/trajectory.dcd" in capsys.readouterr().err


@pytest.mark.parametrize("kind", templates.KINDS)
def test_each_commented_line_is_toml_of_a_key_that_is_known(kind):
    for section in templates._SECTIONS[kind]():
        lines = section.lines()
        for line in lines:
            if COMMENTED.match(line):
                tomllib.loads(line[1:])
        names = {key.name for key in section.keys}
        assert set(section.values) | set(section.examples) <= names, section.header


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_a_default_that_is_shown_is_the_default(record):
    required = REQUIRED.get(record, {})
    shown = {key.name: tomllib.loads(f"x = {key.default}")["x"] for key in keys_of(record) if key.default}
    assert [key.name for key in keys_of(record)] == [field.name for field in dataclasses.fields(record)]
    assert all(key.type for key in keys_of(record))
    first, second = record(**required), record(**{**shown, **required})
    for name, value in vars(first).items():
        assert vars(second)[name] == (tuple(value) if isinstance(value, list) else value), name


def test_the_tables_of_the_documentation_are_those_of_the_records():
    text = (ROOT / "docs" / "run.md").read_text(encoding="utf-8")
    keys = run_keys()
    assert set(re.findall(r"<!-- keys: (\S+) -->", text)) == set(keys)
    assert with_tables(text, keys) == text, "run qmmlmm.commands.key_reference.write_tables on docs/run.md"


def test_the_file_of_the_documentation_has_known_keys_only():
    text = (ROOT / "docs" / "run.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- file: t4_lysozyme -->\n```toml\n(.*?)```", text, re.DOTALL)
    content = tomllib.loads(block)
    assert set(content) <= set(RUN_TOP)
    SystemSettings(**content["system"])
    RegionSettings(**content["region"]["ligand"])
    assert isinstance(DynamicsSettings(**content["dynamics"]).length, Duration)
    HoldSettings(**content["hold"][0])
