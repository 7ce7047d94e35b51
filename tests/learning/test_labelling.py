from __future__ import annotations

import numpy as np
import pytest
from openmm import app, unit

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.errors import EvaluationError
from qmmlmm.learning import append_frames, read_frames
from qmmlmm.learning.labelling import Labeller
from qmmlmm.units import ANGSTROM_IN_BOHR, NM_IN_BOHR

QM = PySCFPotential("hf", "sto-3g", density_fit=False)
# Forces in the file are rounded to 1e-6 eV/angstrom, those of near charges to 1e-5.
FORCE_ROUNDING = 1e-6


@pytest.fixture
def waters():
    """Return two rigid waters without a box; the first is the region."""
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(2):
        residue = topology.addResidue("HOH", chain)
        atoms = [topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("O", "H1", "H2")]
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[0], atoms[2])
    system = app.ForceField("amber14/tip3p.xml").createSystem(topology, nonbondedMethod=app.NoCutoff)
    one = np.array([[0.0, 0.0, 0.0], [0.096, 0.0, 0.0], [-0.024, 0.093, 0.0]])
    positions = np.vstack([one, one + np.array([0.28, 0.02, 0.03])])
    region = Region("water", [0, 1, 2])
    mixed = create_mixed_system(topology, system, Hamiltonian([Term(QM, region, embedding="electrostatic")]))
    return mixed, positions


def test_a_frame_has_the_forces_that_the_simulation_feels(waters, tmp_path):
    mixed, positions = waters
    term = mixed.evaluated_term("water/QM")
    frame = Labeller(term, "hf/sto-3g").label(positions * unit.nanometer, name="dimer")

    path = tmp_path / "labels.xyz"
    append_frames(path, [frame])
    (read,) = read_frames(path)

    energy, gradient = term.compute(positions * NM_IN_BOHR, np.eye(3))
    assert frame.energy == pytest.approx(energy, abs=1e-8)
    np.testing.assert_allclose(read.forces, -gradient[:3], rtol=0, atol=FORCE_ROUNDING)
    np.testing.assert_allclose(read.near.forces, -gradient[3:], rtol=0, atol=FORCE_ROUNDING)
    np.testing.assert_allclose(read.near.positions, positions[3:] * NM_IN_BOHR, rtol=0, atol=1e-4)
    assert read.energy < read.vacuum_energy - 0.003  # a hydrogen bond: 12 kJ/mol; the field is that of the other water
    delta = read.positions[:, None] - read.near.positions[None]
    r = np.linalg.norm(delta, axis=-1)
    np.testing.assert_allclose(read.potential, (read.near.charges / r).sum(1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(read.field, ((read.near.charges / r**3)[..., None] * delta).sum(1), rtol=0, atol=1e-5)
    assert np.linalg.norm(read.dipole) > np.linalg.norm(read.vacuum_dipole)


def test_the_field_gradient_has_its_sign(waters):
    mixed, positions = waters
    frame = Labeller(mixed.evaluated_term("water/QM"), "hf/sto-3g", vacuum=False).label(positions)
    near = frame.near

    def field(point):
        delta = point - near.positions
        return ((near.charges / np.linalg.norm(delta, axis=1) ** 3)[:, None] * delta).sum(0)

    step = 1e-3
    for axis in range(3):
        shift = step * np.eye(3)[axis]
        difference = (field(frame.positions[1] + shift) - field(frame.positions[1] - shift)) / (2 * step)
        np.testing.assert_allclose(frame.field_gradient[1][:, axis], difference, rtol=0, atol=1e-7)
    assert frame.vacuum_energy is None


def test_far_charges_are_left_out_of_the_near_ones(waters):
    mixed, positions = waters
    frame = Labeller(mixed.evaluated_term("water/QM"), "m", vacuum=False, near_reach=1.5).label(positions)
    distance = np.linalg.norm(frame.near.positions[:, None] - frame.positions[None], axis=-1).min(axis=1)
    assert (distance < 1.5 * ANGSTROM_IN_BOHR).all()
    assert len(frame.near.charges) < 3
    assert frame.potential.any()


def test_a_periodic_term_asks_for_its_box(waters):
    mixed, positions = waters
    labeller = Labeller(mixed.evaluated_term("water/QM"), "m", vacuum=False)
    object.__setattr__(labeller.term.layout, "periodic", True)
    with pytest.raises(EvaluationError, match="need box vectors"):
        labeller.label(positions)
