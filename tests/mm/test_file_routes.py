"""Systems from CHARMM and GROMACS files, read by OpenMM, as the force field of a mixed System."""

import re
from types import SimpleNamespace

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm import Hamiltonian, OpenMMPotential, Region, Term, create_mixed_system, select
from systems import acetone_water, package_data
from systems.package_data import PackageFile
from tests.contexts import system_energy_and_forces
from tests.mm.tolerances import CUTOFF_ENERGY, CUTOFF_FORCE, ROUND_OFF_ENERGY, ROUND_OFF_FORCE
from tests.toy_systems import tight_pme

# OpenMM 8.5 leaves the files that it reads to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")

# Two alanines with charged ends, 644 waters and ions, made by CHARMM-GUI; the examples of ParmEd (LGPL) hold them.
_CHARMM_FILES = [
    PackageFile("parmed", "4.3.1", f"examples/charmm/{name}", checksum)
    for name, checksum in (
        ("ala2_charmmgui.psf", "db95ff71f8ac2963f3c28f293db2d851dc110504d361ceeca7742c24b5ffd29e"),
        ("ala2_charmmgui.crd", "b8015e188b23cc4dbc9a09858dfad8dce7adf76941addfa2096ff8d90f8ff6c8"),
        ("toppar/par_all36_prot.prm", "b11af33ff8f052bbbd70e94b5b49c7e9b2588cea4dc37ef8fa12da9f258b39b6"),
        ("toppar/toppar_water_ions.str", "dc00380cd8696aa89d98821dee31887bbf1d1af5d3ed06834f56ecbe239baa1e"),
    )
]
ATOMS_PER_TERM = {"NBOND": 2, "NTHETA": 3, "NPHI": 4, "NIMPHI": 4, "NCRTERM": 8}


def first_atoms_of_psf(text, n):
    """The PSF of the first n atoms, by the sections of the file."""
    parts = re.split(r"\n\s*(\d+(?:\s+\d+)?) !(\w+)[^\n]*\n", text)
    lines = [parts[0], ""]
    for counts, section, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if section == "NTITLE":
            lines += [f"{counts} !NTITLE", body, ""]
        elif section == "NATOM":
            lines += [f"{n:>10} !NATOM", *body.splitlines()[:n], ""]
        elif section in ATOMS_PER_TERM:
            size = ATOMS_PER_TERM[section]
            terms = np.array(body.split(), dtype=int)[: size * int(counts)].reshape(-1, size)
            kept = terms[(terms <= n).all(axis=1)]
            lines += [f"{len(kept):>10} !{section}", *(" ".join(map(str, term)) for term in kept), "", ""]
    return "\n".join(lines) + "\n"


def assert_given_back(case, system, region):
    """Assert that a term that repeats the force field of the region leaves energy and forces as they are."""
    energy, forces = system_energy_and_forces(system, case.positions)
    for embedding in ("mechanical", "electrostatic"):
        term = Term(OpenMMPotential(case.alone), region, embedding=embedding)
        mixed = create_mixed_system(case.topology, system, Hamiltonian([term]))
        mixed_energy, mixed_forces = system_energy_and_forces(mixed.system, case.positions)
        assert mixed_energy == pytest.approx(energy, abs=CUTOFF_ENERGY)
        np.testing.assert_allclose(mixed_forces, forces, atol=CUTOFF_FORCE)


@pytest.fixture(scope="module")
def charmm_files(tmp_path_factory):
    psf_file, crd_file, *parameter_files = map(str, package_data.find(*_CHARMM_FILES))
    parameters = app.CharmmParameterSet(*parameter_files)
    psf = app.CharmmPsfFile(psf_file)
    positions = np.array(app.CharmmCrdFile(crd_file).positions.value_in_unit(unit.nanometer))
    # The file has no box; the waters at its faces get a little room.
    psf.setBox(*((np.ptp(positions, axis=0) + 0.15) * unit.nanometer))
    options = {"constraints": None, "rigidWater": False}
    system = psf.createSystem(parameters, nonbondedMethod=app.PME, nonbondedCutoff=1.0 * unit.nanometer, **options)
    with open(psf_file, encoding="utf-8") as file:
        text = first_atoms_of_psf(file.read(), 23)
    alone_file = tmp_path_factory.mktemp("charmm") / "alone.psf"
    alone_file.write_text(text, encoding="utf-8")
    alone = app.CharmmPsfFile(str(alone_file)).createSystem(parameters, nonbondedMethod=app.NoCutoff, **options)
    return SimpleNamespace(topology=psf.topology, system=system, alone=alone, positions=positions)


def test_a_region_of_charmm_files_that_repeats_the_force_field_gives_it_back(charmm_files):
    case = charmm_files
    assert any(isinstance(force, openmm.CustomNonbondedForce) for force in case.system.getForces())
    peptide = select(case.topology, "resname ALA")
    assert len(peptide) == case.alone.getNumParticles() == 23
    x = case.positions[list(peptide)]
    assert np.linalg.norm(x[:, None] - x, axis=-1).max() < 1.0  # all pairs inside are within the cutoff
    system = tight_pme(case, cutoff=1.0)
    assert_given_back(case, system, Region("peptide", peptide))


def gromacs_topology(structure, n_solute, molecules):
    """A GROMACS topology with the parameters of an OpenMM System, of a solute followed by TIP3P water."""
    system = structure.system
    atoms = list(structure.topology.atoms())
    forces = {type(force): force for force in system.getForces()}
    nonbonded = forces[openmm.NonbondedForce]
    kinds = ["[ atomtypes ]"]
    members: dict[str, list[str]] = {"ACN": [], "SOL": []}
    for molecule, first, count in (("ACN", 0, n_solute), ("SOL", n_solute, 3)):
        for k in range(count):
            charge, sigma, epsilon = (p._value for p in nonbonded.getParticleParameters(first + k))
            name, mass = atoms[first + k].name, system.getParticleMass(first + k)._value
            number = atoms[first + k].element.atomic_number
            kinds.append(f"{molecule}{name} {number} {mass!r} {charge!r} A {sigma!r} {epsilon!r}")
            members[molecule].append(f"{k + 1} {molecule}{name} 1 {molecule} {name} 1 {charge!r} {mass!r}")

    def terms(force, count, get, n_atoms):
        for k in range(count):
            values = [p._value if unit.is_quantity(p) else p for p in get(k)]
            if max(values[:n_atoms]) < n_solute:
                yield " ".join(str(a + 1) for a in values[:n_atoms]), values[n_atoms:]

    bonds, angles, torsions = (
        forces[kind] for kind in (openmm.HarmonicBondForce, openmm.HarmonicAngleForce, openmm.PeriodicTorsionForce)
    )
    lines = [
        "[ defaults ]",
        f"1 2 yes 0.5 {5 / 6!r}",
        *kinds,
        "[ moleculetype ]",
        "ACN 3",
        "[ atoms ]",
        *members["ACN"],
    ]
    lines.append("[ bonds ]")
    lines += [f"{a} 1 {r!r} {k!r}" for a, (r, k) in terms(bonds, bonds.getNumBonds(), bonds.getBondParameters, 2)]
    lines.append("[ angles ]")
    for a, (angle, k) in terms(angles, angles.getNumAngles(), angles.getAngleParameters, 3):
        lines.append(f"{a} 1 {np.degrees(angle)!r} {k!r}")
    lines.append("[ dihedrals ]")
    for a, (n, phase, k) in terms(torsions, torsions.getNumTorsions(), torsions.getTorsionParameters, 4):
        lines.append(f"{a} 9 {np.degrees(phase)!r} {k!r} {n}")
    lines.append("[ pairs ]")
    for k in range(nonbonded.getNumExceptions()):
        a, b, charge, _, epsilon = nonbonded.getExceptionParameters(k)
        if max(a, b) < n_solute and (charge._value != 0.0 or epsilon._value != 0.0):
            lines.append(f"{a + 1} {b + 1} 1")
    lines += ["[ moleculetype ]", "SOL 2", "[ atoms ]", *members["SOL"]]
    lines += ["[ settles ]", "1 1 0.09572 0.15139", "[ exclusions ]", "1 2 3", "2 1 3", "3 1 2"]
    lines += ["[ system ]", "acetone in water", "[ molecules ]", *(f"{name} {n}" for name, n in molecules)]
    return re.sub(r"np\.float64\(([^)]*)\)", r"\1", "\n".join(lines)) + "\n"


@pytest.fixture(scope="module")
def gromacs_files(tmp_path_factory):
    structure = acetone_water.build(constraints=None, nonbonded_cutoff=0.8 * unit.nanometer)
    n_water = (structure.topology.getNumAtoms() - 10) // 3
    folder = tmp_path_factory.mktemp("gromacs")
    built = {}
    for name, molecules in (("alone", [("ACN", 1)]), ("solution", [("ACN", 1), ("SOL", n_water)])):
        file = folder / f"{name}.top"
        file.write_text(gromacs_topology(structure, 10, molecules), encoding="utf-8")
        vectors = structure.topology.getPeriodicBoxVectors() if name == "solution" else None
        built[name] = app.GromacsTopFile(str(file), periodicBoxVectors=vectors)
    solution = built["solution"]
    system = solution.createSystem(app.PME, nonbondedCutoff=0.8 * unit.nanometer)
    alone = built["alone"].createSystem(app.NoCutoff)
    positions = np.array(structure.positions.value_in_unit(unit.nanometer))
    return SimpleNamespace(
        topology=solution.topology, system=system, alone=alone, positions=positions, original=structure.system
    )


def test_the_gromacs_file_holds_the_force_field_that_it_was_written_from(gromacs_files):
    case = gromacs_files
    energy, forces = system_energy_and_forces(case.original, case.positions)
    read_energy, read_forces = system_energy_and_forces(case.system, case.positions)
    assert read_energy == pytest.approx(energy, abs=1e3 * ROUND_OFF_ENERGY)
    np.testing.assert_allclose(read_forces, forces, atol=1e3 * ROUND_OFF_FORCE)


def test_a_region_of_gromacs_files_that_repeats_the_force_field_gives_it_back(gromacs_files):
    case = gromacs_files
    acetone = select(case.topology, "resname ACN")
    assert len(acetone) == case.alone.getNumParticles() == 10
    system = tight_pme(case)
    assert_given_back(case, system, Region("acetone", acetone))


def test_a_region_of_a_file_without_its_repulsion_does_not_pass_for_the_force_field(charmm_files):
    """The comparison above sees a region whose potential lacks a part of the force field."""
    case = charmm_files
    peptide = select(case.topology, "resname ALA")
    wrong = openmm.XmlSerializer.clone(case.alone)
    bonds = next(force for force in wrong.getForces() if isinstance(force, openmm.HarmonicBondForce))
    a, b, length, k = bonds.getBondParameters(0)
    bonds.setBondParameters(0, a, b, length, 1.01 * k)
    term = Term(OpenMMPotential(wrong), Region("peptide", peptide), embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    _, forces = system_energy_and_forces(case.system, case.positions)
    _, mixed_forces = system_energy_and_forces(mixed.system, case.positions)
    assert np.abs(mixed_forces - forces).max() > 1e3 * CUTOFF_FORCE
