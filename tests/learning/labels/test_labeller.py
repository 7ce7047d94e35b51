from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from openmm import app
from scipy.special import erf

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.errors import EvaluationError, SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.learning import append_frames, read_frames
from qmmlmm.learning.labels.labeller import Labeller
from qmmlmm.learning.training.frame_tensors import conditions_of, frame_tensors
from qmmlmm.qm import TDA
from qmmlmm.units import ANGSTROM_IN_BOHR, NM_IN_BOHR
from tests.finite_differences import central_difference

QM = PySCFPotential("hf", "sto-3g", density_fit=False)
# Forces in the file are rounded to 1e-6 eV/angstrom, those of near charges to 1e-5.
FORCE_ROUNDING = 1e-6
SAME_STATE = 1e-6
"""hartree: of first order in what orbitals and amplitudes miss, 1e-6, from another guess."""


def two_waters(smeared_charges=None, potential=QM, box=None):
    """Return two rigid waters; the first is the region."""
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(2):
        residue = topology.addResidue("HOH", chain)
        atoms = [topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("O", "H1", "H2")]
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[0], atoms[2])
    topology.setPeriodicBoxVectors(box)
    method = app.NoCutoff if box is None else app.PME
    system = app.ForceField("amber14/tip3p.xml").createSystem(topology, nonbondedMethod=method, nonbondedCutoff=0.9)
    one = np.array([[0.0, 0.0, 0.0], [0.096, 0.0, 0.0], [-0.024, 0.093, 0.0]])
    positions = np.vstack([one, one + np.array([0.28, 0.02, 0.03])])
    region = Region("water", [0, 1, 2])
    term = Term(potential, region, embedding="electrostatic", smeared_charges=smeared_charges)
    return create_mixed_system(topology, system, Hamiltonian([term])), Geometry(positions, box)


@pytest.fixture
def waters():
    return two_waters()


def test_a_frame_has_the_forces_that_the_simulation_feels(waters, tmp_path):
    mixed, geometry = waters
    term = mixed.evaluated_term("water/QM")
    frame = Labeller(term, "hf/sto-3g").label(geometry, name="dimer")

    path = tmp_path / "labels.xyz"
    append_frames(path, [frame])
    (read,) = read_frames(path)

    energy, gradient = term.energy_and_gradient(geometry.in_bohr())
    assert frame.energy == pytest.approx(energy, abs=1e-8)
    np.testing.assert_allclose(read.forces, -gradient[:3], rtol=0, atol=FORCE_ROUNDING)
    np.testing.assert_allclose(read.near.forces, -gradient[3:], rtol=0, atol=FORCE_ROUNDING)
    np.testing.assert_allclose(read.near.positions, geometry.in_bohr().positions[3:], rtol=0, atol=1e-4)
    assert read.energy < read.vacuum_energy - 0.003  # a hydrogen bond: 12 kJ/mol; the field is that of the other water
    delta = read.positions[:, None] - read.near.positions[None]
    r = np.linalg.norm(delta, axis=-1)
    np.testing.assert_allclose(read.potential, (read.near.charges / r).sum(1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(read.field, ((read.near.charges / r**3)[..., None] * delta).sum(1), rtol=0, atol=1e-5)
    assert np.linalg.norm(read.dipole) > np.linalg.norm(read.vacuum_dipole)


def test_labels_of_an_excited_state_say_so(tmp_path):
    potential = PySCFPotential("hf", "sto-3g", excited=TDA(n_states=3), state=1)
    mixed, geometry = two_waters(potential=potential)
    excited = Labeller(mixed.evaluated_term("water/QM"), "hf/sto-3g, TDA").label(geometry, name="excited")
    mixed, _ = two_waters()
    ground = replace(Labeller(mixed.evaluated_term("water/QM"), "hf/sto-3g, TDA").label(geometry), name="ground")
    assert ground.electronic_state == 0
    assert excited.energy - ground.energy > 0.2  # hartree; water absorbs above 7 eV
    assert excited.vacuum_energy - ground.vacuum_energy > 0.2
    append_frames(tmp_path / "labels.xyz", [ground, excited])
    assert conditions_of(read_frames(tmp_path / "labels.xyz")) == [(0, 1, 0), (0, 1, 1)]


def test_all_states_of_a_geometry_are_labelled_like_each_of_them_alone():
    mixed, geometry = two_waters(potential=PySCFPotential("hf", "sto-3g", excited=TDA(n_states=3)))
    term = mixed.evaluated_term("water/QM")
    frames = Labeller(term, "tda").label_states(geometry, states=(0, 2, 1), name="dimer")
    assert [frame.electronic_state for frame in frames] == [0, 2, 1]
    assert [frame.name for frame in frames] == ["dimer-s0", "dimer-s2", "dimer-s1"]
    for frame in frames[1:]:
        potential = PySCFPotential("hf", "sto-3g", excited=TDA(n_states=3), state=frame.electronic_state)
        other, _ = two_waters(potential=potential)
        alone = Labeller(other.evaluated_term("water/QM"), "tda").label(geometry)
        assert frame.energy == pytest.approx(alone.energy, abs=SAME_STATE)
        assert frame.vacuum_energy == pytest.approx(alone.vacuum_energy, abs=SAME_STATE)
        np.testing.assert_allclose(frame.forces, alone.forces, rtol=0, atol=10 * SAME_STATE)
        np.testing.assert_allclose(frame.near.forces, alone.near.forces, rtol=0, atol=10 * SAME_STATE)
    # The term of the System still has the ground state.
    assert term.energy_and_gradient(geometry.in_bohr())[0] == pytest.approx(frames[0].energy, abs=SAME_STATE)


def test_states_that_cannot_be_labelled_are_refused(waters):
    mixed, geometry = waters
    with pytest.raises(EvaluationError, match=r"states \[0, 1\]: its potential has only one state"):
        Labeller(mixed.evaluated_term("water/QM"), "hf").label_states(geometry)
    for states, more, message in (
        ((0, 3), {}, r"states \[0, 3\]: it has states 0 to 2"),
        ((), {}, "states 0 to 2"),
        ((0, 1), {"follow_state": True}, "follow_state=True.*leave it out"),
    ):
        mixed, geometry = two_waters(potential=PySCFPotential("hf", "sto-3g", excited=TDA(3), **more))
        with pytest.raises(EvaluationError, match=message):
            Labeller(mixed.evaluated_term("water/QM"), "tda").label_states(geometry, states=states)


def test_the_field_gradient_has_its_sign(waters):
    mixed, geometry = waters
    frame = Labeller(mixed.evaluated_term("water/QM"), "hf/sto-3g", vacuum=False).label(geometry)
    near = frame.near

    def field(point):
        delta = point - near.positions
        return ((near.charges / np.linalg.norm(delta, axis=1) ** 3)[:, None] * delta).sum(0)

    for axis in range(3):
        difference = central_difference(field, frame.positions[1], np.eye(3)[axis], 1e-3)
        np.testing.assert_allclose(frame.field_gradient[1][:, axis], difference, rtol=0, atol=1e-7)
    assert frame.vacuum_energy is None


def test_labels_of_smeared_charges_hold_their_widths_and_the_response_to_them(tmp_path):
    width = 0.12  # nm; the nearest charge is 0.19 nm away
    mixed, geometry = two_waters(width)
    term = mixed.evaluated_term("water/QM")
    frame = Labeller(term, "hf/sto-3g, smeared 0.12 nm", vacuum=False).label(geometry)
    _, gradient = term.energy_and_gradient(geometry.in_bohr())
    np.testing.assert_allclose(frame.near.forces, -gradient[3:], rtol=0, atol=FORCE_ROUNDING)
    path = tmp_path / "labels.xyz"
    append_frames(path, [frame])
    (read,) = read_frames(path)
    np.testing.assert_allclose(read.near.widths, width * NM_IN_BOHR, atol=1e-4)

    def potential(places):
        r = np.linalg.norm(frame.positions[:, None] - places[None], axis=-1)
        return (frame.near.charges * erf(r / (width * NM_IN_BOHR)) / r).sum(axis=1)

    def slope(places):
        delta = frame.positions[:, None] - places[None]
        r = np.linalg.norm(delta, axis=-1)
        x = r / (width * NM_IN_BOHR)
        radial = (2.0 / np.sqrt(np.pi) * x * np.exp(-(x**2)) - erf(x)) / r**3
        return ((frame.near.charges * radial)[..., None] * delta).sum(axis=1)

    places = frame.near.positions
    np.testing.assert_allclose(frame.potential, potential(places), rtol=0, atol=1e-12)
    np.testing.assert_allclose(frame.field, -slope(places), rtol=0, atol=1e-12)
    table = frame_tensors([frame], conditions_of([frame])).near_map[0]
    for row, direction in enumerate(np.eye(9).reshape(9, 3, 3)):
        expected = central_difference(
            lambda p: np.concatenate([potential(p), slope(p).ravel()]), places, direction, 1e-4
        )
        np.testing.assert_allclose(table[row], expected, rtol=0, atol=1e-7)  # single precision


def test_far_charges_are_left_out_of_the_near_ones(waters):
    mixed, geometry = waters
    frame = Labeller(mixed.evaluated_term("water/QM"), "m", vacuum=False, near_reach=1.5).label(geometry)
    distance = np.linalg.norm(frame.near.positions[:, None] - frame.positions[None], axis=-1).min(axis=1)
    assert (distance < 1.5 * ANGSTROM_IN_BOHR).all()
    assert len(frame.near.charges) < 3
    assert frame.potential.any()


def test_a_periodic_term_asks_for_its_box():
    mixed, geometry = two_waters(box=2.0 * np.eye(3))
    labeller = Labeller(mixed.evaluated_term("water/QM"), "m", vacuum=False)
    with pytest.raises(EvaluationError, match="need box vectors"):
        labeller.label(Geometry(geometry.positions))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({"term": value}, r"term is a term from mixed\.evaluated_term") for value in (None, 5, "water/QM")),
        *(({"method": value}, "method must be named") for value in (None, 5, "", 'a"b', "a\nb")),
        *(({"vacuum": value}, "vacuum is True or False") for value in ("no", 0, 1, None)),
        *(({"near_reach": v}, "near_reach is a finite number") for v in ("x", None, True, 0, -1, 1e9, float("nan"))),
    ],
)
def test_a_wrong_argument_is_refused_by_name(waters, arguments, message):
    mixed, _ = waters
    with pytest.raises(SettingError, match=message):
        Labeller(**{"term": mixed.evaluated_term("water/QM"), "method": "hf", **arguments})


BOX = 2.0 * np.eye(3)


@pytest.mark.parametrize(
    ("box", "change", "message"),
    [
        (None, lambda g: None, "labels are of a Geometry"),
        (None, lambda g: g.positions, "labels are of a Geometry"),
        (None, lambda g: Geometry(g.positions[:3]), r"positions has the shape \(6, 3\), got \(3, 3\)"),
        (None, lambda g: Geometry(g.positions * np.nan), "positions is finite"),
        (None, lambda g: Geometry("x"), "positions is an array of numbers"),
        (BOX, lambda g: Geometry(g.positions), "is periodic: labels need box vectors"),
        (BOX, lambda g: Geometry(g.positions, np.zeros((3, 3))), "the box vectors span no volume"),
        (BOX, lambda g: Geometry(g.positions, np.ones(3)), r"box vectors has the shape \(3, 3\), got \(3,\)"),
        (BOX, lambda g: Geometry(g.positions, BOX * np.nan), "box vectors is finite"),
    ],
)
def test_a_geometry_of_something_else_is_refused(box, change, message):
    mixed, geometry = two_waters(box=box)
    labeller = Labeller(mixed.evaluated_term("water/QM"), "hf", vacuum=False)
    with pytest.raises(EvaluationError, match=f"^term 'water/QM'.*{message}"):
        labeller.label(change(geometry))


@pytest.mark.parametrize("states", [(0.0, 1.0), ("0",), (True,), "01", 1, None])
def test_states_are_indices(states):
    mixed, geometry = two_waters(potential=PySCFPotential("hf", "sto-3g", excited=TDA(n_states=3)))
    with pytest.raises(EvaluationError, match="states"):
        Labeller(mixed.evaluated_term("water/QM"), "tda").label_states(geometry, states=states)
