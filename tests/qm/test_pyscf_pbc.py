"""Against the periodic embedding that PySCF has of its own: one water among ions in a cube."""

import numpy as np
import openmm
from openmm import app, unit
from pyscf import gto, lib, scf
from pyscf.qmmm.pbc import itrf

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.geometry import Geometry
from qmmlmm.units import NM_IN_BOHR

EDGE = 1.8  # nm
WATER = np.array([[0.9, 0.9, 0.9], [0.9957, 0.9, 0.9], [0.876, 0.9926, 0.9]])
CUTOFFS = (12.0, 20.0, 26.0, 30.0)  # bohr, of its exact coupling; the corner of the cube is at 29
SMALL = 2e-6  # hartree
MEMORY = 2000  # MB


def _ions():
    """Positions of 20 charges of 0.4 e that are 0.28 nm away from all else."""
    rng = np.random.default_rng(2)
    places = list(WATER)
    while len(places) < 23:
        trial = rng.uniform(0, EDGE, 3)
        away = np.array(places) - trial
        away -= EDGE * np.round(away / EDGE)
        if np.linalg.norm(away, axis=1).min() > 0.28:
            places.append(trial)
    return np.array(places[3:]), 0.4 * np.tile([1.0, -1.0], 10)


def _own_energy(ions, charges):
    topology, system, force = app.Topology(), openmm.System(), openmm.NonbondedForce()
    residue = topology.addResidue("HOH", topology.addChain())
    oxygen, *hydrogens = (
        topology.addAtom(e.symbol, e, residue) for e in (app.element.oxygen, *[app.element.hydrogen] * 2)
    )
    for hydrogen in hydrogens:
        topology.addBond(oxygen, hydrogen)
    for _ in ions:
        topology.addAtom("X", app.element.sodium, topology.addResidue("ION", topology.addChain()))
    for atom, charge in zip(topology.atoms(), (-0.834, 0.417, 0.417, *charges), strict=True):
        system.addParticle(atom.element.mass)
        force.addParticle(charge, 0.2, 0.1)
    for i in range(3):
        for j in range(i):
            force.addException(i, j, 0.0, 0.2, 0.0)
    system.setDefaultPeriodicBoxVectors(*(EDGE * np.eye(3)))
    topology.setPeriodicBoxVectors(EDGE * np.eye(3) * unit.nanometer)
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setCutoffDistance(0.85)
    force.setPMEParameters(4.0, 80, 80, 80)
    system.addForce(force)
    qm = PySCFPotential("hf", "6-31g", density_fit=False, conv_tol=1e-10)
    term = Term(qm, Region("water", [0, 1, 2]), embedding="electrostatic")
    mixed = create_mixed_system(topology, system, Hamiltonian([term]))
    geometry = Geometry(np.concatenate([WATER, ions]), EDGE * np.eye(3))
    return mixed.evaluated_term("water/QM").energy_and_gradient(geometry.in_bohr())[0]


def _energy_of_pyscf(ions, charges, cutoff):
    atoms = list(zip(("O", "H", "H"), WATER * NM_IN_BOHR, strict=True))
    molecule = gto.M(atom=atoms, unit="Bohr", basis="6-31g", verbose=0)
    edge = EDGE * NM_IN_BOHR
    mean_field = itrf.add_mm_charges(
        scf.RHF(molecule),
        ions * NM_IN_BOHR,
        edge * np.eye(3),
        charges,
        rcut_ewald=0.95 * edge,
        rcut_hcore=cutoff,
        unit="Bohr",
    )
    # The cell of the charges has a limit of its own, from which PySCF subtracts the memory of the whole process, here
    # that of all tests before; where nothing is left, it leaves out its Ewald terms without a word.
    mean_field.max_memory = mean_field.mm_mol.max_memory = lib.current_memory()[0] + MEMORY
    return mean_field.set(conv_tol=1e-10).kernel()


def test_the_energy_is_that_of_pyscf_within_what_its_cutoff_of_exact_integrals_leaves(truth):
    # Beyond the cutoff PySCF takes multipoles of the atoms; it lets the charges of the images follow the density,
    # where here they are those of the force field.
    ions, charges = _ions()
    energy = _own_energy(ions, charges)
    theirs = np.array([_energy_of_pyscf(ions, charges, cutoff) for cutoff in CUTOFFS])
    differences = abs(theirs - energy)
    assert differences[0] > 5 * differences[-1]
    assert differences[-1] < abs(theirs[-1] - theirs[-2])  # its own change with the last widening
    check = f"HF energy against `pyscf.qmmm.pbc` with exact integrals up to {CUTOFFS[-1]:g} bohr"
    truth.below(check, differences[-1], SMALL, "hartree")
