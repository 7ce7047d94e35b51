"""Small systems that the tests of qmmlmm.mm share."""

import io
from types import SimpleNamespace

import numpy as np
import openmm
import pytest
from openmm import app, unit

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


def bonds_inside(topology, particles):
    inside = set(particles)
    pairs = [(bond[0].index, bond[1].index) for bond in topology.bonds()]
    return tuple(pair for pair in pairs if inside.issuperset(pair))


def make_case(modeller, force_field, seed=1, **options):
    """Topology, System and positions that are off the minimum, so that every term counts."""
    system = force_field.createSystem(modeller.topology, **options)
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    rng = np.random.default_rng(seed)
    massive = np.array([system.getParticleMass(i)._value > 0 for i in range(len(positions))])
    if not options.get("rigidWater", True):
        positions[massive] += 0.005 * rng.standard_normal((int(massive.sum()), 3))
    else:
        positions[:22] += 0.005 * rng.standard_normal((22, 3))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions)
    context.computeVirtualSites()
    positions = context.getState(positions=True).getPositions(asNumpy=True)._value
    return SimpleNamespace(topology=modeller.topology, system=system, positions=positions, force_field=force_field)


def peptide_modeller():
    pdb = app.PDBFile(io.StringIO(ALANINE_DIPEPTIDE))
    return app.Modeller(pdb.topology, pdb.positions)


def single_residue(modeller):
    """The same molecule as one residue: CHARMM36 has it as a template of its own."""
    topology = app.Topology()
    residue = topology.addResidue("ALAD", topology.addChain())
    atoms = [topology.addAtom(atom.name, atom.element, residue) for atom in modeller.topology.atoms()]
    for bond in modeller.topology.bonds():
        topology.addBond(atoms[bond[0].index], atoms[bond[1].index])
    return app.Modeller(topology, modeller.positions)


def charmm_templates(modeller):
    return {residue: "ALAD" for residue in modeller.topology.residues() if residue.name == "ALAD"}


def solvated(files, model, shape="cube", **options):
    force_field = app.ForceField(*files)
    modeller = peptide_modeller() if files[0].startswith("amber") else single_residue(peptide_modeller())
    length = {"cube": 1.85, "octahedron": 2.05}[shape]
    vectors = {
        "cube": np.eye(3),
        "octahedron": np.array([[1, 0, 0], [1 / 3, 2 * np.sqrt(2) / 3, 0], [-1 / 3, np.sqrt(2) / 3, np.sqrt(6) / 3]]),
    }[shape]
    modeller.addSolvent(
        force_field,
        model=model,
        boxVectors=[openmm.Vec3(*v) for v in length * vectors],
        residueTemplates=charmm_templates(modeller),
    )
    options = {"nonbondedMethod": app.PME, "nonbondedCutoff": 0.8, "constraints": None} | options
    options["residueTemplates"] = charmm_templates(modeller)
    return make_case(modeller, force_field, **options)


@pytest.fixture(scope="session")
def amber_vacuum():
    """Alanine dipeptide and three flexible TIP3P waters, without cutoff."""
    force_field = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
    modeller = peptide_modeller()
    modeller.addSolvent(force_field, numAdded=3)
    modeller.topology.setPeriodicBoxVectors(None)
    return make_case(modeller, force_field, nonbondedMethod=app.NoCutoff, rigidWater=False)


@pytest.fixture(scope="session")
def charmm_vacuum():
    """Alanine dipeptide and three waters in CHARMM36, with CMAP and CustomNonbondedForce."""
    force_field = app.ForceField("charmm36.xml", "charmm36/water.xml")
    modeller = single_residue(peptide_modeller())
    modeller.addSolvent(force_field, numAdded=3, residueTemplates=charmm_templates(modeller))
    modeller.topology.setPeriodicBoxVectors(None)
    return make_case(
        modeller,
        force_field,
        nonbondedMethod=app.NoCutoff,
        rigidWater=False,
        residueTemplates=charmm_templates(modeller),
    )


@pytest.fixture(scope="session")
def tip4p_cube():
    return solvated(["amber14-all.xml", "amber14/tip4pew.xml"], "tip4pew")


@pytest.fixture(scope="session")
def tip4p_octahedron():
    return solvated(["amber14-all.xml", "amber14/tip4pew.xml"], "tip4pew", "octahedron")


@pytest.fixture(scope="session")
def charmm_cube():
    return solvated(["charmm36.xml", "charmm36/water.xml"], "tip3p")
