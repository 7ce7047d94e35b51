"""The command ``qmmlmm learn`` and its file."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from openmm import app, unit

from qmmlmm import MLPotential, XTBPotential
from qmmlmm.commands.learn_input import read_loop
from qmmlmm.commands.main import main
from qmmlmm.errors import InputFileError
from qmmlmm.learning.loop import HillVariable, LearningLoop, LoopSettings, Metadynamics, Torsion
from qmmlmm.learning.loop.store import LoopStore
from qmmlmm.sampling import Angle, Combination, CoordinationNumber, Distance
from tests.toy_potentials import Springs

FILE = """
directory = "run"
embedding = "electrostatic"
platform = "Reference"

[system]
pdb = "waters.pdb"
force_field = ["amber14/tip3p.xml"]
no_box = true

[region]
name = "water"
select = "resid 0"
charge = 0

[qm]
method = "hf"
basis = "sto-3g"
max_cycle = 1

[loop]
force_error = 20.0
start_labels = 8
start_steps = 4
members = 2

[network]
features = 6
layers = 1

[labels]
workers = 1
attempts = 1
seconds = 60

[[variable]]
name = "angle"
torsion = [1, 0, 3, 4]

[umbrella]
variable = "angle"
force_constant = 50.0
centres = [0.5, 1.5]
"""


@pytest.fixture
def folder(tmp_path):
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(2):
        residue = topology.addResidue("HOH", chain)
        atoms = [topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("O", "H1", "H2")]
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[0], atoms[2])
    one = np.array([[0.0, 0.0, 0.0], [0.09572, 0.0, 0.0], [-0.023999, 0.092663, 0.0]])
    with (tmp_path / "waters.pdb").open("w") as file:
        app.PDBFile.writeFile(topology, np.vstack([one, one + 0.3]) * unit.nanometer, file)
    return tmp_path


def written(folder, text=FILE):
    path = folder / "loop.toml"
    path.write_text(text)
    return path


def test_a_file_says_what_python_would(folder):
    with mock.patch("qmmlmm.commands.learn_input.LearningLoop", wraps=LearningLoop) as made:
        loop = read_loop(written(folder))
    assert loop.directory == folder / "run"
    assert loop.settings == LoopSettings(force_error=20.0, start_labels=8, start_steps=4, members=2)
    assert loop.variables == {"angle": Torsion(1, 0, 3, 4)}
    assert [dict(walker.parameters) for walker in loop.walkers] == [
        {"umbrella_centre": 0.5, "umbrella_k": 50.0},
        {"umbrella_centre": 1.5, "umbrella_k": 50.0},
    ]
    term = made.call_args.args[3]
    assert term.region.atoms == (0, 1, 2)
    assert term.potential.method_name == "hf/sto-3g"
    assert made.call_args.kwargs["method"] is None
    assert made.call_args.kwargs["labelling"].limits.seconds == 60


def test_a_file_with_labels_by_xtb(folder):
    text = FILE.replace('"hf"', '"gfn2-xtb"').replace('basis = "sto-3g"\nmax_cycle = 1', "accuracy = 0.001")
    with mock.patch("qmmlmm.commands.learn_input.LearningLoop", wraps=LearningLoop) as made:
        read_loop(written(folder, text))
    assert made.call_args.args[3].potential == XTBPotential("gfn2-xtb", accuracy=0.001)
    with pytest.raises(InputFileError, match=r"\[qm\] has the unknown key 'basis'; known are method, multipoles"):
        read_loop(written(folder, FILE.replace('"hf"', '"gfn2-xtb"')))


def test_a_file_with_a_base(folder):
    text = FILE + '\n[base]\nmethod = "gfn2-xtb"\nmultipoles = 0\n'
    with mock.patch("qmmlmm.commands.learn_input.LearningLoop", wraps=LearningLoop) as made:
        read_loop(written(folder, text))
    assert made.call_args.kwargs["base"] == XTBPotential("gfn2-xtb", multipoles=0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"\[base\] names a level: method = \"gfn2-xtb\""),
        ('model = "none.pt"', r"\[base\] model: there is no file .*none\.pt"),
        ('model = "waters.pdb"', r"\[base\] .*is not a model file"),
        ('model = "own.pt"', r"\[base\] .*trust_code=True"),
        ('model = "own.pt"\nmethod = "hf"', r"\[base\] has the unknown key 'method'; known are model, trust_code"),
        ('model = "own.pt"\ntrust_code = true', "MLPotential has no electrostatic embedding"),
        ('method = "gfn3-xtb"', "basis"),
    ],
)
def test_a_base_that_is_none_is_refused(folder, table, message):
    MLPotential(Springs(), elements=["O", "H"]).save(folder / "own.pt")
    with pytest.raises(InputFileError, match=message):
        read_loop(written(folder, f"{FILE}\n[base]\n{table}\n"))


HILLS = """
[metadynamics]
height = 1.5
bias_factor = 10
interval = 40

[[metadynamics.along]]
variable = "angle"
width = 0.3
"""


def test_a_file_with_hills(folder):
    text = FILE.split("[umbrella]")[0] + HILLS
    loop = read_loop(written(folder, text))
    assert loop.metadynamics == Metadynamics((HillVariable(Torsion(1, 0, 3, 4), 0.3),), 1.5, 10, 40)
    for old, new, message in (
        (
            'variable = "angle"\nwidth',
            'variable = "phi"\nwidth',
            "metadynamics.along: there is no variable 'phi'; there are ang",
        ),
        ("height = 1.5", "", r"\[metadynamics\] lacks 'height'"),
        ("width = 0.3", "widht = 0.3", "unknown key 'widht'.*Nearest names: width"),
    ):
        with pytest.raises(InputFileError, match=message):
            read_loop(written(folder, text.replace(old, new)))


def test_bonds_of_the_umbrella_and_of_hills_may_break_unless_the_file_names_others(folder):
    bond = FILE.replace("torsion = [1, 0, 3, 4]", "combination = [[1.0, 1, 0], [-1.0, 1, 3]]")
    assert read_loop(written(folder, bond)).settings.reacting_bonds == ((0, 1),)
    hills = bond.split("[umbrella]")[0] + HILLS + "low = 0.0\nhigh = 0.5\n"
    assert read_loop(written(folder, hills)).settings.reacting_bonds == ((0, 1),)
    named = bond.replace("[loop]", '[loop]\nreacting_bonds = [["resid 0 and name H2", 0]]')
    assert read_loop(written(folder, named)).settings.reacting_bonds == ((0, 2),)
    none = bond.replace("[loop]", "[loop]\nreacting_bonds = []")
    assert read_loop(written(folder, none)).settings.reacting_bonds == ()


@pytest.mark.parametrize(
    ("bonds", "message"),
    [
        ("5", r"\[loop\] reacting_bonds is a list"),
        ("[0, 1]", r"\[loop\] reacting_bonds is a list of lists"),
        ("[[0, 9]]", r"\[loop\] reacting_bonds: the System has the particles 0 to 5, got 9"),
        ('[["name H1", 0]]', r"\[loop\] reacting_bonds: the selection 'name H1' matches 2 atoms, 1, 4"),
        ("[[0, 1, 2]]", r"\[loop\] reacting_bonds: a bond has 2 atoms, got 3"),
        ("[[1, 2]]", "reacting_bonds: the atoms 1 and 2 have no bond in the Topology"),
        ("[[3, 4]]", r"reacting_bonds: \[3, 4\] has the atom 3, which is not in the region"),
    ],
)
def test_bonds_that_are_none_are_refused(folder, bonds, message):
    with pytest.raises(InputFileError, match=message):
        read_loop(written(folder, FILE.replace("[loop]", f"[loop]\nreacting_bonds = {bonds}")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[loop]", "[lop]", "the file has the unknown key 'lop'.*Nearest names: loop"),
        ("force_error", "force_eror", r"\[loop\] has the unknown key 'force_eror'.*Nearest names: force_error"),
        ('basis = "sto-3g"', "", r"\[qm\]"),
        ("torsion = [1, 0, 3, 4]", "torsion = [1, 0]", "a torsion has 4 atoms"),
        ('variable = "angle"', 'variable = "phi"', "there is no variable 'phi'; there are angle"),
        ("torsion = [1, 0, 3, 4]", "combination = [[1.0, 0]]", "each row of a combination is a weight with the atoms"),
        (
            "torsion = [1, 0, 3, 4]",
            'combination = [["a", 0, 1]]',
            "each row of a combination is a weight with the atoms",
        ),
        ("torsion = [1, 0, 3, 4]", "combination = [1.0, 0, 1]", "is a list of lists"),
        ("torsion = [1, 0, 3, 4]", "combination = [[1.0, 0, 9]]", "the particles 0 to 5, got 9"),
        ("torsion = [1, 0, 3, 4]", "combination = [[0.0, 0, 1]]", "weight of a term is not zero"),
        ("torsion = [1, 0, 3, 4]", "coordination = [0, 1]", "write .variable.coordination."),
        ('select = "resid 0"', "", r"\[region\] lacks 'select'"),
        ("directory =", "directory", "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_known(folder, old, new, message):
    with pytest.raises(InputFileError, match=message):
        read_loop(written(folder, FILE.replace(old, new)))


def test_the_command_makes_labels_with_pyscf_and_ends_with_a_reason_when_none_converges(folder, capsys, monkeypatch):
    """One cycle is not enough for any SCF: all labels are set aside, in processes of their own."""
    monkeypatch.chdir(folder)
    assert main(["learn", str(written(folder)), "--quiet"]) == 1
    message = capsys.readouterr().err
    assert "none of the 8 labels of round 0 could be made" in message
    assert "ConvergenceError" in message
    store = LoopStore(folder / "run", 6)
    assert store.counts()["failed"] == 8
    assert all(job.geometry.positions.shape == (6, 3) for job in store.jobs())


def test_variables_of_all_kinds(folder):
    kinds = """
[[variable]]
name = "transfer"
combination = [[1.0, 0, 3], [-1.0, 1, 4], [0.5, 0, 1, 2]]
[[variable]]
name = "bend"
angle = [1, 0, 2]
[[variable]]
name = "contacts"
coordination = {first = [0], second = [3, 4], distance = 0.25}
"""
    variables = read_loop(written(folder, FILE + kinds)).variables
    assert variables["transfer"] == Combination([(1.0, Distance(0, 3)), (-1.0, Distance(1, 4)), (0.5, Angle(0, 1, 2))])
    assert variables["bend"] == Angle(1, 0, 2)
    assert variables["contacts"] == CoordinationNumber([0], [3, 4], 0.25, 6)


def write_scan(folder, lengths):
    """Write structures in which the second water is farther and farther away, as a scan leaves them."""
    pdb = app.PDBFile(str(folder / "waters.pdb"))
    start = np.array(pdb.positions.value_in_unit(unit.nanometer))
    with (folder / "scan.pdb").open("w") as file:
        for k, length in enumerate(lengths):
            moved = start.copy()
            moved[3:] += [length, 0.0, 0.0]
            app.PDBFile.writeModel(pdb.topology, moved * unit.nanometer, file, k + 1)
    return start


def test_walkers_start_at_the_structures_of_a_scan_that_are_nearest_to_their_centres(folder):
    start = write_scan(folder, [0.0, 0.1, 0.2])
    first = np.linalg.norm(start[3] - start[0])
    last = np.linalg.norm(start[3] + [0.2, 0.0, 0.0] - start[0])
    text = FILE.replace("torsion = [1, 0, 3, 4]", "distance = [0, 3]").replace(
        "[0.5, 1.5]", f"[{last - 0.01}, {first}]"
    )
    walkers = read_loop(written(folder, text + 'starts = "scan.pdb"\n')).walkers
    assert np.allclose(walkers[0].positions[3:] - start[3:], [0.2, 0.0, 0.0], atol=1e-4)
    assert np.allclose(walkers[1].positions, start, atol=1e-4)


def test_a_walker_has_positions_of_its_own(folder):
    start = write_scan(folder, [0.1])
    text = FILE.split("[umbrella]")[0] + '[[walker]]\n[[walker]]\npositions = "scan.pdb"\n'
    walkers = read_loop(written(folder, text)).walkers
    assert walkers[0].positions is None
    assert np.allclose(walkers[1].positions[3:] - start[3:], [0.1, 0.0, 0.0], atol=1e-4)


def test_starts_of_walkers_that_are_not_there_are_named(folder):
    with pytest.raises(InputFileError, match=r"\[umbrella\] starts: there is no file"):
        read_loop(written(folder, FILE + 'starts = "none.pdb"\n'))
    with pytest.raises(InputFileError, match=r"\[\[walker\]\] positions: there is no file"):
        read_loop(written(folder, FILE.split("[umbrella]")[0] + '[[walker]]\npositions = "none.pdb"\n'))
