"""Small systems that several tests need: a peptide in vacuum and in water, chains and molecules among ions."""

from __future__ import annotations

import copy
import functools
import io
from types import SimpleNamespace

import numpy as np
import openmm
from openmm import app, unit

from tests.contexts import make_context

# --- alanine dipeptide ---

# Built from Amber's ideal internal coordinates for ACE-ALA-NME.
ALANINE_DIPEPTIDE = """\
ATOM      1  H1  ACE A   1       2.000   1.000  -0.000  1.00  0.00           H
ATOM      2  CH3 ACE A   1       2.000   2.090   0.000  1.00  0.00           C
ATOM      3  H2  ACE A   1       1.486   2.454   0.890  1.00  0.00           H
ATOM      4  H3  ACE A   1       1.486   2.454  -0.890  1.00  0.00           H
ATOM      5  C   ACE A   1       3.427   2.641  -0.000  1.00  0.00           C
ATOM      6  O   ACE A   1       4.391   1.877  -0.000  1.00  0.00           O
ATOM      7  N   ALA A   2       3.555   3.970  -0.000  1.00  0.00           N
ATOM      8  H   ALA A   2       2.733   4.556  -0.000  1.00  0.00           H
ATOM      9  CA  ALA A   2       4.853   4.614  -0.000  1.00  0.00           C
ATOM     10  HA  ALA A   2       5.408   4.316   0.890  1.00  0.00           H
ATOM     11  CB  ALA A   2       5.661   4.221  -1.232  1.00  0.00           C
ATOM     12  HB1 ALA A   2       5.123   4.521  -2.131  1.00  0.00           H
ATOM     13  HB2 ALA A   2       6.630   4.719  -1.206  1.00  0.00           H
ATOM     14  HB3 ALA A   2       5.809   3.141  -1.241  1.00  0.00           H
ATOM     15  C   ALA A   2       4.713   6.129   0.000  1.00  0.00           C
ATOM     16  O   ALA A   2       3.601   6.653   0.000  1.00  0.00           O
ATOM     17  N   NME A   3       5.846   6.835   0.000  1.00  0.00           N
ATOM     18  H   NME A   3       6.737   6.359  -0.000  1.00  0.00           H
ATOM     19  CH3 NME A   3       5.846   8.284   0.000  1.00  0.00           C
ATOM     20  H1  NME A   3       4.819   8.648   0.000  1.00  0.00           H
ATOM     21  H2  NME A   3       6.360   8.648   0.890  1.00  0.00           H
ATOM     22  H3  NME A   3       6.360   8.648  -0.890  1.00  0.00           H
TER
END
"""
PEPTIDE = tuple(range(22))
SIDE_CHAIN = (10, 11, 12, 13)

OCTAHEDRON = np.array([[1, 0, 0], [1 / 3, 2 * np.sqrt(2) / 3, 0], [-1 / 3, np.sqrt(2) / 3, np.sqrt(6) / 3]])
"""Box vectors of a truncated octahedron with an edge of one."""


def make_case(modeller, force_field, seed=1, **options):
    """Return topology, System and positions, nm, that are off the minimum, so that every term counts."""
    system = force_field.createSystem(modeller.topology, **options)
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    rng = np.random.default_rng(seed)
    massive = np.array([system.getParticleMass(i)._value > 0 for i in range(len(positions))])
    if not options.get("rigidWater", True):
        positions[massive] += 0.005 * rng.standard_normal((int(massive.sum()), 3))
    else:
        positions[:22] += 0.005 * rng.standard_normal((22, 3))
    context = make_context(system, positions)
    context.computeVirtualSites()
    positions = context.getState(positions=True).getPositions(asNumpy=True)._value
    return SimpleNamespace(topology=modeller.topology, system=system, positions=positions, force_field=force_field)


def peptide_modeller():
    pdb = app.PDBFile(io.StringIO(ALANINE_DIPEPTIDE))
    return app.Modeller(pdb.topology, pdb.positions)


def single_residue(modeller):
    """Return the same molecule as one residue: CHARMM36 has it as a template of its own."""
    topology = app.Topology()
    residue = topology.addResidue("ALAD", topology.addChain())
    atoms = [topology.addAtom(atom.name, atom.element, residue) for atom in modeller.topology.atoms()]
    for bond in modeller.topology.bonds():
        topology.addBond(atoms[bond[0].index], atoms[bond[1].index])
    return app.Modeller(topology, modeller.positions)


def charmm_templates(topology):
    return {residue: "ALAD" for residue in topology.residues() if residue.name == "ALAD"}


@functools.cache
def peptide_in_vacuum(force_field="amber"):
    """Return alanine dipeptide and three flexible waters without cutoff, in Amber or CHARMM36."""
    files = {"amber": ("amber14-all.xml", "amber14/tip3p.xml"), "charmm": ("charmm36.xml", "charmm36/water.xml")}
    force_field_ = app.ForceField(*files[force_field])
    modeller = peptide_modeller() if force_field == "amber" else single_residue(peptide_modeller())
    modeller.addSolvent(force_field_, numAdded=3, residueTemplates=charmm_templates(modeller.topology))
    modeller.topology.setPeriodicBoxVectors(None)
    return make_case(
        modeller,
        force_field_,
        nonbondedMethod=app.NoCutoff,
        rigidWater=False,
        residueTemplates=charmm_templates(modeller.topology),
    )


@functools.cache
def peptide_in_water(force_field="amber", shape="cube"):
    """Return alanine dipeptide in rigid water under PME, TIP4P-Ew with Amber and TIP3P with CHARMM36."""
    files, model = {
        "amber": (("amber14-all.xml", "amber14/tip4pew.xml"), "tip4pew"),
        "charmm": (("charmm36.xml", "charmm36/water.xml"), "tip3p"),
    }[force_field]
    force_field_ = app.ForceField(*files)
    modeller = peptide_modeller() if force_field == "amber" else single_residue(peptide_modeller())
    vectors = {"cube": 1.85 * np.eye(3), "octahedron": 2.05 * OCTAHEDRON}[shape]
    modeller.addSolvent(
        force_field_,
        model=model,
        boxVectors=[openmm.Vec3(*v) for v in vectors],
        residueTemplates=charmm_templates(modeller.topology),
    )
    return make_case(
        modeller,
        force_field_,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.8,
        constraints=None,
        residueTemplates=charmm_templates(modeller.topology),
    )


def isolated_molecule(case, particles):
    """Return the System that the force field gives to a molecule alone."""
    modeller = app.Modeller(case.topology, case.positions * unit.nanometer)
    modeller.delete([atom for atom in case.topology.atoms() if atom.index not in set(particles)])
    modeller.topology.setPeriodicBoxVectors(None)
    return case.force_field.createSystem(
        modeller.topology,
        nonbondedMethod=app.NoCutoff,
        rigidWater=False,
        removeCMMotion=False,
        residueTemplates=charmm_templates(modeller.topology),
    )


# --- changes of a System ---


def nonbonded_force(system):
    """Return the first NonbondedForce. It belongs to the System and lives as long as that one."""
    return next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))


def tight_pme(case, cutoff=0.8):
    """Return the same System with so large an alpha that nothing is left at the cutoff."""
    system = copy.deepcopy(case.system)
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setPMEParameters(4.5 / cutoff, 48, 48, 48)
    return system


def without_lennard_jones(system, particles):
    """Take the Lennard-Jones interactions of some particles out of a System, and return it."""
    inside = set(particles)
    force = nonbonded_force(system)
    for particle in inside:
        charge, sigma, _ = force.getParticleParameters(particle)
        force.setParticleParameters(particle, charge, sigma, 0.0)
    for index in range(force.getNumExceptions()):
        a, b, charge, sigma, _ = force.getExceptionParameters(index)
        if a in inside and b in inside:
            force.setExceptionParameters(index, a, b, charge, sigma, 0.0)
    return system


# --- chains of charges among ions ---

PAIR_REACH = 6.0
"""alpha times the cutoff of the chains' NonbondedForce: erfc is 2e-17 there, and nobody can tell where it ends."""

CHAIN_CUTOFF = 1.0
CHAIN_BOXES = {
    "cubic": 2.2 * np.eye(3),
    "octahedron": 2.6 * OCTAHEDRON,
    "triclinic": np.array([[2.3, 0, 0], [0.5, 2.2, 0], [-0.9, 0.8, 2.4]]),
}
# Odd: at the Nyquist frequency of an even mesh the sign of m is a matter of taste, which shows in a skewed
# box if the mesh is as coarse as this one.
CHAIN_GRID = (25, 27, 23)
# A zigzag chain of six carbon atoms, with the hydrogens left out; bonds of 0.15 nm.
CHAIN = np.array([[0, 0, 0], [0.13, 0.08, 0], [0.26, 0, 0.03], [0.38, 0.09, 0.02], [0.51, 0.01, 0], [0.6, 0.12, 0.05]])
CHAIN_CHARGES = np.array([0.4, -0.7, 0.55, -0.25, 0.3, -0.3])
N_CHAIN = len(CHAIN)


def add_molecule(topology, name, elements, bonds):
    """Add a molecule of one residue to a Topology, with single bonds."""
    residue = topology.addResidue(name, topology.addChain())
    atoms = [topology.addAtom(f"A{k}", element, residue) for k, element in enumerate(elements)]
    for a, b in bonds:
        topology.addBond(atoms[a], atoms[b], order=1)  # else, without hydrogens, it looks like a double bond


def scattered(rng, box, occupied, count, clearance):
    """Return points in a box that are `clearance` away from those before, images considered."""
    shifts = np.array([[a, b, c] for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]) @ box
    points = [np.asarray(p) for p in occupied]
    while len(points) < len(occupied) + count:
        trial = rng.uniform(0.0, 1.0, 3) @ box
        away = np.array(points)[:, None, :] - trial - shifts[None]
        if (np.linalg.norm(away, axis=2) > clearance).all():
            points.append(trial)
    return np.array(points[len(occupied) :])


def chains_among_ions(
    shape="cubic", region_charge=0, ion_charge=0, n_chains=1, alpha=PAIR_REACH / CHAIN_CUTOFF, grid=CHAIN_GRID
):
    """Return one or two chains among ions of both signs, in a box or, with shape None, without one.

    Pairs inside a chain do not interact: as a region of fixed charges it gives the plain force field back. Its bonds
    have no energy.
    """
    rng = np.random.default_rng(1)
    topology, system, force = app.Topology(), openmm.System(), openmm.NonbondedForce()
    box = CHAIN_BOXES[shape or "cubic"]
    charges, places = [], []
    for k in range(n_chains):
        add_molecule(topology, "CHN", [app.element.carbon] * N_CHAIN, [(i, i + 1) for i in range(N_CHAIN - 1)])
        charges.append(CHAIN_CHARGES + (region_charge if k == 0 else -region_charge) / N_CHAIN)
        # The second starts at the edge of the box and is cut by it.
        places.append(CHAIN + (np.array([0.4, 0.45, 0.5]) if k == 0 else np.array([0.93, 0.9, 0.97])) @ box)
    chain_places = np.concatenate(places)
    ions = scattered(rng, box, chain_places, 40, 0.22)
    ion_charges = rng.uniform(0.3, 0.9, 40) * np.tile([1, -1], 20)
    ion_charges += (ion_charge - ion_charges.sum()) / 40
    for _ in ions:
        add_molecule(topology, "ION", [app.element.sodium], [])
    for atom, charge in zip(topology.atoms(), np.concatenate([*charges, ion_charges]), strict=True):
        system.addParticle(atom.element.mass)
        force.addParticle(charge, 0.2, 0.1)
    for k in range(n_chains):
        for i in range(N_CHAIN):
            for j in range(i):
                force.addException(N_CHAIN * k + i, N_CHAIN * k + j, 0.0, 0.2, 0.0)
    bonds = openmm.HarmonicBondForce()
    for first, second in topology.bonds():
        bonds.addBond(first.index, second.index, 0.15, 0.0)
    positions = np.concatenate([chain_places, ions])
    if shape:
        system.setDefaultPeriodicBoxVectors(*box)
        topology.setPeriodicBoxVectors(box * unit.nanometer)
        force.setNonbondedMethod(openmm.NonbondedForce.PME)
        force.setCutoffDistance(CHAIN_CUTOFF)
        force.setPMEParameters(alpha, *grid)
        force.setExceptionsUsePeriodicBoundaryConditions(True)
        # Molecules that the box cuts in two.
        positions = positions - np.floor(positions @ np.linalg.inv(box)) @ box
    system.addForce(force)
    system.addForce(bonds)
    return SimpleNamespace(
        topology=topology,
        system=system,
        positions=positions,
        box=box if shape else None,
        charges=np.concatenate([*charges, ion_charges]),
        chains=[tuple(range(N_CHAIN * k, N_CHAIN * (k + 1))) for k in range(n_chains)],
        region_charges=[region_charge, -region_charge][:n_chains],
    )


def nearest_images(displacements, box):
    """Return displacements, (..., 3), rounded to the nearest image in fractional coordinates; unchanged without box."""
    if box is None:
        return displacements
    return displacements - np.round(displacements @ np.linalg.inv(box)) @ box


# --- a molecule among ions ---


def molecule_among_ions(periodic=True):
    """Return a molecule of three atoms, H-O-H, and 20 ions, in a skewed box or without one."""
    rng = np.random.default_rng(11)
    topology, system, force = app.Topology(), openmm.System(), openmm.NonbondedForce()
    elements = [app.element.hydrogen, app.element.oxygen, app.element.hydrogen]
    residue = topology.addResidue("MOL", topology.addChain())
    atoms = [topology.addAtom(f"A{k}", element, residue) for k, element in enumerate(elements)]
    topology.addBond(atoms[0], atoms[1])
    topology.addBond(atoms[1], atoms[2])
    box = np.array([[1.9, 0, 0], [0.4, 1.8, 0], [-0.5, 0.6, 2.0]])
    # The ions stand on a lattice, shaken, with one place free for the molecule.
    lattice = np.array([[a, b, c] for a in range(3) for b in range(3) for c in range(3)])[1:21] / 3.0
    places = [[0.0, 0.0, 0.0], [0.08, 0.05, 0.0], [0.15, -0.01, 0.02]]
    places += [*(lattice @ box + 0.05 * rng.standard_normal((20, 3)))]
    charges = [0.3, -0.6, 0.3] + [0.4, -0.4] * 10
    for k, charge in enumerate(charges):
        if k > 2:
            topology.addAtom("NA", app.element.sodium, topology.addResidue("ION", topology.addChain()))
        system.addParticle((elements[k] if k <= 2 else app.element.sodium).mass)
        force.addParticle(charge, 0.2, 0.1)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        force.addException(i, j, 0.0, 0.2, 0.0)
    if periodic:
        system.setDefaultPeriodicBoxVectors(*box)
        topology.setPeriodicBoxVectors(box * unit.nanometer)
        force.setNonbondedMethod(openmm.NonbondedForce.PME)
        force.setCutoffDistance(0.7)
        force.setPMEParameters(4.0, 25, 25, 27)
    system.addForce(force)
    return SimpleNamespace(topology=topology, system=system, positions=np.array(places), box=box if periodic else None)
