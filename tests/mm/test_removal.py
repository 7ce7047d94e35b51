import copy
import itertools
import math

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm.errors import RegionError, UnsupportedSystemError
from qmmlmm.mm.electrostatics import electrostatics_settings
from qmmlmm.mm.removal import CONNECTIVITY_NAME, RegionToRemove, remove_regions
from tests.contexts import make_context, system_energy
from tests.toy_systems import PEPTIDE, SIDE_CHAIN, isolated_molecule, nonbonded_force

COULOMB = 138.93545764438198  # kJ nm/(mol e^2), as in OpenMM
EXACT = 1e-8  # kJ/mol: the same numbers on the Reference platform, added in another order
PME_ERROR = 1e-7  # kJ/mol: the mesh gives the same numbers to both Systems
CPU_ERROR = 0.05  # kJ/mol: single precision, sums of some thousand kJ/mol
LJPME_SHIFT = 0.01  # kJ/mol: LJPME shifts pairs inside the cutoff, 4e-3 in all for this peptide

BACKBONE = (4, 5, 6, 7, 8, 9, 14, 15, 16, 17)  # has the five atoms of the CMAP, and lacks CB
WATERS = (22, 23, 24, 25, 26, 27)
EMBEDDINGS = ["mechanical", "electrostatic"]


def bonds_inside(topology, particles):
    inside = set(particles)
    pairs = [(bond[0].index, bond[1].index) for bond in topology.bonds()]
    return tuple(pair for pair in pairs if inside.issuperset(pair))


def region(case, particles, embedding="mechanical", name="ligand"):
    return RegionToRemove(name, tuple(particles), embedding, bonds_inside(case.topology, particles))


def internal_coordinate(points):
    """Distance, angle or dihedral of two, three or four points."""
    if len(points) == 2:
        return np.linalg.norm(points[1] - points[0])
    if len(points) == 3:
        u, v = points[0] - points[1], points[2] - points[1]
        return math.acos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
    b0, b1, b2 = points[0] - points[1], points[2] - points[1], points[3] - points[2]
    b1 = b1 / np.linalg.norm(b1)
    v, w = b0 - (b0 @ b1) * b1, b2 - (b2 @ b1) * b1
    return math.atan2(np.cross(b1, v) @ w, v @ w)


def bare(parameters):
    return [p._value if unit.is_quantity(p) else p for p in parameters]


def bonded_energy_inside(system, particles, positions):
    """Sum by formula over the terms inside; Forces with tables go through OpenMM term by term."""
    inside = set(particles)
    total = 0.0
    for force in system.getForces():
        kind = type(force)
        if kind is openmm.HarmonicBondForce:
            terms = [bare(force.getBondParameters(k)) for k in range(force.getNumBonds())]
            total += sum(
                k / 2 * (internal_coordinate(positions[[i, j]]) - r) ** 2 for i, j, r, k in terms if {i, j} <= inside
            )
        elif kind is openmm.HarmonicAngleForce:
            terms = [bare(force.getAngleParameters(k)) for k in range(force.getNumAngles())]
            total += sum(
                k / 2 * (internal_coordinate(positions[[i, j, m]]) - r) ** 2
                for i, j, m, r, k in terms
                if {i, j, m} <= inside
            )
        elif kind is openmm.PeriodicTorsionForce:
            terms = [bare(force.getTorsionParameters(k)) for k in range(force.getNumTorsions())]
            total += sum(
                k * (1 + math.cos(n * internal_coordinate(positions[[i, j, m, o]]) - phase))
                for i, j, m, o, n, phase, k in terms
                if {i, j, m, o} <= inside
            )
        elif kind is openmm.RBTorsionForce:
            for k in range(force.getNumTorsions()):
                i, j, m, o, *c = bare(force.getTorsionParameters(k))
                if {i, j, m, o} <= inside:
                    x = math.cos(internal_coordinate(positions[[i, j, m, o]]) - math.pi)
                    total += sum(c[n] * x**n for n in range(6))
        elif kind is openmm.CMAPTorsionForce:
            alone = openmm.CMAPTorsionForce()
            for k in range(force.getNumMaps()):
                alone.addMap(*bare(force.getMapParameters(k)))
            for k in range(force.getNumTorsions()):
                term = force.getTorsionParameters(k)
                if set(term[1:]) <= inside:
                    alone.addTorsion(*term)
            total += energy_of(alone, positions)
        elif kind is openmm.CustomTorsionForce:
            alone = openmm.CustomTorsionForce(force.getEnergyFunction())
            for k in range(force.getNumPerTorsionParameters()):
                alone.addPerTorsionParameter(force.getPerTorsionParameterName(k))
            for k in range(force.getNumTorsions()):
                term = force.getTorsionParameters(k)
                if set(term[:4]) <= inside:
                    alone.addTorsion(*term)
            total += energy_of(alone, positions)
        elif kind is openmm.CustomBondForce:  # the 1-4 Lennard-Jones terms of CHARMM
            terms = [force.getBondParameters(k) for k in range(force.getNumBonds())]
            names = [force.getPerBondParameterName(k) for k in range(force.getNumPerBondParameters())]
            assert names == ["sigma", "epsilon"]
            total += sum(
                lennard_jones(internal_coordinate(positions[[i, j]]), *v) for i, j, v in terms if {i, j} <= inside
            )
    return total


def energy_of(force, positions):
    system = openmm.System()
    for _ in positions:
        system.addParticle(1.0)
    system.addForce(force)
    return system_energy(system, positions)


def lennard_jones(r, sigma, epsilon):
    return 4 * epsilon * ((sigma / r) ** 12 - (sigma / r) ** 6)


def pair_sums(system, positions, particles, cutoff=np.inf, alpha=0.0):
    """Lennard-Jones inside, Coulomb inside, and Coulomb between inside and outside, without a box.

    Beyond a cutoff, what PME leaves out is left out here too.
    """
    force = nonbonded_force(system)
    parameters = np.array([bare(force.getParticleParameters(i)) for i in range(force.getNumParticles())])
    exceptions = {}
    for k in range(force.getNumExceptions()):
        i, j, *values = bare(force.getExceptionParameters(k))
        exceptions[frozenset((i, j))] = values
    inside = set(particles)
    lj = coulomb = coupling = 0.0
    for i, j in itertools.combinations(range(len(positions)), 2):
        if i not in inside and j not in inside:
            continue
        (qi, si, ei), (qj, sj, ej) = parameters[i], parameters[j]
        qq, sigma, epsilon = exceptions.get(frozenset((i, j)), (qi * qj, (si + sj) / 2, math.sqrt(ei * ej)))
        r = internal_coordinate(positions[[i, j]])
        if i in inside and j in inside:
            beyond = r >= cutoff and frozenset((i, j)) not in exceptions
            lj += 0.0 if beyond else lennard_jones(r, sigma, epsilon)
            coulomb += COULOMB * qq / r * (math.erf(alpha * r) if beyond else 1.0)
        else:
            coupling += COULOMB * qq / r
    return lj, coulomb, coupling


def table_energy_inside(system, particles, positions):
    """The CustomNonbondedForce of CHARMM inside: all other pairs are excluded."""
    total = 0.0
    inside = set(particles)
    for force in system.getForces():
        if isinstance(force, openmm.CustomNonbondedForce):
            alone = copy.deepcopy(force)
            known = {frozenset(force.getExclusionParticles(k)) for k in range(force.getNumExclusions())}
            for pair in itertools.combinations(range(system.getNumParticles()), 2):
                if not (inside >= set(pair)) and frozenset(pair) not in known:
                    alone.addExclusion(*pair)
            total += energy_of(alone, positions)
    return total


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("force_field", ["amber_vacuum", "charmm_vacuum"])
def test_a_removed_molecule_takes_with_it_what_the_force_field_gives_it_alone(force_field, embedding, request):
    case = request.getfixturevalue(force_field)
    removed = remove_regions(case.system, [region(case, PEPTIDE, embedding)])
    alone = system_energy(isolated_molecule(case, PEPTIDE), case.positions[:22])
    coupling = pair_sums(case.system, case.positions, PEPTIDE)[2]
    expected = alone + (coupling if embedding == "electrostatic" else 0.0)
    difference = system_energy(case.system, case.positions) - system_energy(removed, case.positions)
    assert abs(alone) > 10
    assert abs(coupling) > 0.1
    assert difference == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("particles", [SIDE_CHAIN, BACKBONE, PEPTIDE, WATERS, (*SIDE_CHAIN, *WATERS)])
@pytest.mark.parametrize("force_field", ["amber_vacuum", "charmm_vacuum"])
def test_a_removed_region_takes_with_it_exactly_the_terms_inside(force_field, particles, embedding, request):
    case = request.getfixturevalue(force_field)
    removed = remove_regions(case.system, [region(case, particles, embedding)])
    lj, coulomb, coupling = pair_sums(case.system, case.positions, particles)
    expected = bonded_energy_inside(case.system, particles, case.positions) + lj + coulomb
    expected += table_energy_inside(case.system, particles, case.positions)
    expected += coupling if embedding == "electrostatic" else 0.0
    difference = system_energy(case.system, case.positions) - system_energy(removed, case.positions)
    assert difference == pytest.approx(expected, abs=EXACT)


def test_two_regions_lose_their_own_terms_and_keep_what_is_between_them(amber_vacuum):
    case = amber_vacuum
    two = remove_regions(
        case.system,
        [region(case, SIDE_CHAIN), region(case, (5,), name="oxygen"), region(case, WATERS, name="waters")],
    )
    expected = 0.0
    for particles in (SIDE_CHAIN, WATERS):
        lj, coulomb, _ = pair_sums(case.system, case.positions, particles)
        expected += bonded_energy_inside(case.system, particles, case.positions) + lj + coulomb
    difference = system_energy(case.system, case.positions) - system_energy(two, case.positions)
    assert difference == pytest.approx(expected, abs=EXACT)


def test_regions_that_are_bonded_to_each_other_keep_the_terms_between_them(amber_vacuum):
    case = amber_vacuum
    parts = [SIDE_CHAIN, (8, 9, 14, 15)]  # CA is bonded to CB
    removed = remove_regions(case.system, [region(case, part, name=f"part {part[0]}") for part in parts])
    expected = 0.0
    for part in parts:
        lj, coulomb, _ = pair_sums(case.system, case.positions, part)
        expected += bonded_energy_inside(case.system, part, case.positions) + lj + coulomb
    difference = system_energy(case.system, case.positions) - system_energy(removed, case.positions)
    assert difference == pytest.approx(expected, abs=EXACT)


def coulomb_only(system, particles, keep):
    """The Coulomb part of a NonbondedForce, with or without the charges of some particles."""
    force = copy.deepcopy(nonbonded_force(system))
    force.setName("Coulomb")
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setUseDispersionCorrection(False)
    inside = set(particles)
    for i in range(force.getNumParticles()):
        q = force.getParticleParameters(i)[0]
        force.setParticleParameters(i, q if keep or i not in inside else 0.0, 1.0, 0.0)
    for k in range(force.getNumExceptions()):
        i, j, qq, _, _ = force.getExceptionParameters(k)
        force.setExceptionParameters(k, i, j, qq if keep or not {i, j} & inside else 0.0, 1.0, 0.0)
    result = copy.deepcopy(system)
    while result.getNumForces():
        result.removeForce(0)
    result.addForce(force)
    return result


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize(
    "particles", [SIDE_CHAIN, PEPTIDE, tuple(range(30, 34)), (*SIDE_CHAIN, *range(30, 34), *range(82, 86))]
)
@pytest.mark.parametrize("box", ["tip4p_cube", "tip4p_octahedron"])
def test_removal_under_pme_is_exact_in_every_box_with_virtual_sites(box, particles, embedding, request):
    case = request.getfixturevalue(box)
    assert case.system.isVirtualSite(33)
    removed = remove_regions(case.system, [region(case, particles, embedding)])
    vectors = case.topology.getPeriodicBoxVectors()._value
    positions = nearest_images(case.positions, particles, np.array(vectors))
    alpha = electrostatics_settings(case.system).alpha
    lj, coulomb, _ = pair_sums(case.system, positions, particles, 0.8, alpha)
    expected = bonded_energy_inside(case.system, particles, positions) + lj
    if embedding == "mechanical":
        expected += coulomb
    else:
        with_charges, without = (
            system_energy(coulomb_only(case.system, particles, keep), case.positions) for keep in (True, False)
        )
        expected += with_charges - without
    difference = system_energy(case.system, case.positions) - system_energy(removed, case.positions)
    assert difference == pytest.approx(expected, abs=PME_ERROR)


def nearest_images(positions, particles, box):
    """Move each particle to the image that is nearest to the first one."""
    result = positions.copy()
    for i in particles:
        shifts = [np.array(n) @ box for n in itertools.product((-1, 0, 1), repeat=3)]
        result[i] = min((positions[i] + s for s in shifts), key=lambda r: np.sum((r - result[particles[0]]) ** 2))
    return result


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_a_region_of_two_molecules_may_lie_in_different_images_of_the_box(tip4p_octahedron, platform):
    case = tip4p_octahedron
    removed = remove_regions(case.system, [region(case, (*range(30, 34), *range(34, 38)))])
    moved = case.positions.copy()
    vectors = np.array(case.topology.getPeriodicBoxVectors()._value)
    moved[34:38] += vectors[2] - vectors[0]
    before, after = (system_energy(removed, p, platform=platform) for p in (case.positions, moved))
    assert after == pytest.approx(before, abs=EXACT if platform == "Reference" else CPU_ERROR)


def test_a_rigid_water_with_a_virtual_site_has_no_energy_of_its_own(tip4p_cube):
    case = tip4p_cube
    removed = remove_regions(case.system, [region(case, range(30, 34))])
    assert removed.getNumConstraints() == case.system.getNumConstraints() - 3
    assert removed.isVirtualSite(33)
    assert system_energy(removed, case.positions) == pytest.approx(
        system_energy(case.system, case.positions), abs=EXACT
    )


def test_the_dispersion_mesh_of_ljpme_lets_go_of_a_region(tip4p_cube):
    case = tip4p_cube
    system = copy.deepcopy(case.system)
    force = nonbonded_force(system)
    force.setNonbondedMethod(openmm.NonbondedForce.LJPME)
    force.setEwaldErrorTolerance(1e-5)
    removed = remove_regions(system, [region(case, PEPTIDE)])
    positions = case.positions
    alpha = electrostatics_settings(system).alpha
    lj, coulomb, _ = pair_sums(system, positions, PEPTIDE, 0.8, alpha)
    expected = bonded_energy_inside(system, PEPTIDE, positions) + lj + coulomb
    difference = system_energy(system, positions) - system_energy(removed, positions)
    assert difference == pytest.approx(expected, abs=LJPME_SHIFT)
    for embedding in EMBEDDINGS:
        side_chain = remove_regions(system, [region(case, SIDE_CHAIN, embedding)])
        assert nonbonded_force(side_chain).getNonbondedMethod() == openmm.NonbondedForce.LJPME


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_one_four_terms_across_a_cut_keep_lennard_jones_and_lose_charges_only_when_embedded(amber_vacuum, embedding):
    case = amber_vacuum
    removed = remove_regions(case.system, [region(case, SIDE_CHAIN, embedding)])

    def exceptions(system):
        force = nonbonded_force(system)
        rows = [bare(force.getExceptionParameters(k)) for k in range(force.getNumExceptions())]
        return {(min(i, j), max(i, j)): (qq, sigma, epsilon) for i, j, qq, sigma, epsilon in rows}

    before, after = exceptions(case.system), exceptions(removed)
    one_four = [pair for pair, row in before.items() if len(set(pair) & set(SIDE_CHAIN)) == 1 and row[2] > 0]
    assert len(one_four) > 4
    for pair in one_four:
        charge = before[pair][0] if embedding == "mechanical" else 0.0
        assert before[pair][0] != 0.0
        assert after[pair] == (charge, *before[pair][1:])
    for pair in itertools.combinations(SIDE_CHAIN, 2):
        assert after[pair][0] == after[pair][2] == 0.0
    untouched = {pair: row for pair, row in before.items() if not set(pair) & set(SIDE_CHAIN)}
    assert untouched == {pair: after[pair] for pair in untouched}


def terms_of(system):
    """Particles and parameters of all bonded terms, by class."""
    found = {}
    for force in system.getForces():
        if force.getName() == CONNECTIVITY_NAME:
            continue
        if isinstance(force, openmm.HarmonicBondForce | openmm.CustomBondForce):
            rows, size = [force.getBondParameters(k) for k in range(force.getNumBonds())], 2
        elif isinstance(force, openmm.HarmonicAngleForce):
            rows, size = [force.getAngleParameters(k) for k in range(force.getNumAngles())], 3
        elif isinstance(force, openmm.PeriodicTorsionForce | openmm.CustomTorsionForce):
            rows, size = [force.getTorsionParameters(k) for k in range(force.getNumTorsions())], 4
        elif isinstance(force, openmm.CMAPTorsionForce):
            rows = [force.getTorsionParameters(k) for k in range(force.getNumTorsions())]
            rows, size = [[*row[1:], row[0]] for row in rows], 8
        else:
            continue
        found.setdefault(type(force).__name__, []).extend((tuple(row[:size]), str(row[size:])) for row in rows)
    return found


# What stays across CA-CB, by how many of the particles are inside; and CMAP, of which no particle is CB.
SIDE_CHAIN_CUT = {
    "amber_vacuum": {"HarmonicBondForce": {1}, "HarmonicAngleForce": {1, 2}, "PeriodicTorsionForce": {1, 2}},
    "charmm_vacuum": {"HarmonicBondForce": {1}, "HarmonicAngleForce": {1, 2}, "CMAPTorsionForce": set()},
}


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("particles", [SIDE_CHAIN, BACKBONE])
@pytest.mark.parametrize("force_field", ["amber_vacuum", "charmm_vacuum"])
def test_a_bonded_term_stays_whole_if_one_of_its_particles_is_outside(force_field, particles, embedding, request):
    case = request.getfixturevalue(force_field)
    inside = set(particles)
    before, after = terms_of(case.system), terms_of(remove_regions(case.system, [region(case, particles, embedding)]))
    for kind, terms in before.items():
        assert after.get(kind, []) == [term for term in terms if not inside.issuperset(term[0])]
    if particles == SIDE_CHAIN:
        for kind, counts in SIDE_CHAIN_CUT[force_field].items():
            across = {len(inside.intersection(term[0])) for term in after[kind]}
            assert across - {0} == counts
    elif force_field == "charmm_vacuum":
        assert (len(before["CMAPTorsionForce"]), after.get("CMAPTorsionForce", [])) == (1, [])


def chain(n=8):
    system = openmm.System()
    for _ in range(n):
        system.addParticle(12.0)
    rng = np.random.default_rng(5)
    positions = 0.12 * np.arange(n)[:, None] * np.array([1.0, 0.3, 0.1]) + 0.05 * rng.standard_normal((n, 3))
    return system, positions


def every_bonded_force(n=8):
    """A chain with one term of each bonded class at each place."""
    system, positions = chain(n)
    rb = openmm.RBTorsionForce()
    compound = openmm.CustomCompoundBondForce(3, "k*g*distance(p1,p2)*angle(p1,p2,p3)+f(distance(p2,p3))")
    compound.addPerBondParameter("k")
    compound.addGlobalParameter("g", 1.5)
    compound.addTabulatedFunction("f", openmm.Continuous1DFunction([0.0, 1.0, 0.5, 2.0], 0.0, 3.0))
    compound.addEnergyParameterDerivative("g")
    angle = openmm.CustomAngleForce("k*theta^2")
    angle.addPerAngleParameter("k")
    torsion = openmm.CustomTorsionForce("k*cos(theta)")
    torsion.addPerTorsionParameter("k")
    bond = openmm.CustomBondForce("k*r^3")
    bond.addPerBondParameter("k")
    for force, size in ((bond, 2), (angle, 3), (compound, 3), (torsion, 4)):
        add = getattr(force, {2: "addBond", 4: "addTorsion"}.get(size) or "addAngle", None) or force.addBond
        for k in range(n - size + 1):
            particles = range(k, k + size)
            add(*([list(particles)] if force is compound else particles), [1.1**k])
    for k in range(n - 3):
        rb.addTorsion(k, k + 1, k + 2, k + 3, *(0.3 * (k + c) for c in range(6)))
    for number, force in enumerate((rb, compound, angle, torsion, bond)):
        force.setForceGroup(number + 3)
        force.setName(f"number {number}")
        force.setUsesPeriodicBoundaryConditions(number % 2 == 0)
        system.addForce(force)
    system.setDefaultPeriodicBoxVectors(*(9.0 * np.eye(3)))
    return system, positions


def test_each_bonded_class_loses_the_terms_inside_and_keeps_those_that_reach_out():
    system, positions = every_bonded_force()
    removed = remove_regions(system, [RegionToRemove("middle", (1, 2, 3, 4, 5), "mechanical")])
    counts = [
        getattr(force, name)()
        for force, name in zip(
            removed.getForces(),
            ("getNumTorsions", "getNumBonds", "getNumAngles", "getNumTorsions", "getNumBonds"),
            strict=False,
        )
    ]
    assert counts == [3, 3, 3, 3, 3]  # of 5, 6, 6, 5 and 7

    def formula(k, kind):
        x = [internal_coordinate(positions[k : k + size]) for size in (2, 3, 4)[: 3 if kind in "rt" else 2]]
        if kind == "r":
            return sum(0.3 * (k + c) * math.cos(x[2] - math.pi) ** c for c in range(6))
        return {"b": lambda: x[0] ** 3, "a": lambda: x[1] ** 2, "t": lambda: math.cos(x[2])}[kind]() * 1.1**k

    expected = sum(formula(k, "b") for k in (1, 2, 3, 4)) + sum(formula(k, "a") for k in (1, 2, 3))
    expected += sum(formula(k, "t") + formula(k, "r") for k in (1, 2))
    spline = openmm.CustomCompoundBondForce(2, "f(distance(p1,p2))")
    spline.addTabulatedFunction("f", openmm.Continuous1DFunction([0.0, 1.0, 0.5, 2.0], 0.0, 3.0))
    for k in (1, 2, 3):
        spline.addBond([k + 1, k + 2], [])
        expected += 1.5 * 1.1**k * internal_coordinate(positions[k : k + 2]) * internal_coordinate(positions[k : k + 3])
    expected += energy_of(spline, positions)
    assert system_energy(system, positions) - system_energy(removed, positions) == pytest.approx(expected, abs=EXACT)


def test_what_else_a_force_holds_survives_the_removal_of_terms():
    system, _ = every_bonded_force()
    removed = remove_regions(system, [RegionToRemove("middle", (1, 2, 3, 4, 5), "mechanical")])
    for before, after in zip(system.getForces(), removed.getForces(), strict=False):
        assert type(before) is type(after)
        assert before.getName() == after.getName()
        assert before.getForceGroup() == after.getForceGroup()
        assert before.usesPeriodicBoundaryConditions() == after.usesPeriodicBoundaryConditions()
    compound = removed.getForce(1)
    assert compound.getGlobalParameterName(0) == "g"
    assert compound.getGlobalParameterDefaultValue(0) == 1.5
    assert compound.getEnergyParameterDerivativeName(0) == "g"
    assert compound.getTabulatedFunctionName(0) == "f"
    assert compound.getEnergyFunction() == system.getForce(1).getEnergyFunction()


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_the_given_system_is_unchanged_and_the_result_survives_serialisation(charmm_cube, embedding):
    case = charmm_cube
    text = openmm.XmlSerializer.serialize(case.system)
    removed = remove_regions(case.system, [region(case, PEPTIDE, embedding)])
    assert openmm.XmlSerializer.serialize(case.system) == text
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(removed))
    assert system_energy(again, case.positions) == system_energy(removed, case.positions)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("particles", [PEPTIDE, SIDE_CHAIN, tuple(range(31, 37))])
def test_exclusions_agree_between_forces_so_that_the_cpu_platform_accepts_them(charmm_cube, particles, embedding):
    case = charmm_cube
    removed = remove_regions(case.system, [region(case, particles, embedding)])
    coulomb = nonbonded_force(removed)
    table = next(f for f in removed.getForces() if isinstance(f, openmm.CustomNonbondedForce))
    exceptions = {frozenset(coulomb.getExceptionParameters(k)[:2]) for k in range(coulomb.getNumExceptions())}
    exclusions = {frozenset(table.getExclusionParticles(k)) for k in range(table.getNumExclusions())}
    assert exceptions == exclusions
    assert len(exclusions) == table.getNumExclusions()
    reference = system_energy(removed, case.positions)
    assert system_energy(removed, case.positions, platform="CPU") == pytest.approx(reference, abs=CPU_ERROR)


def test_constraints_inside_go_and_those_across_stay(tip4p_cube):
    case = tip4p_cube
    system = case.force_field.createSystem(
        case.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.8, constraints=app.HBonds
    )
    before = {frozenset(system.getConstraintParameters(k)[:2]) for k in range(system.getNumConstraints())}
    removed = remove_regions(system, [region(case, (11, *range(22, 26)))])
    after = {frozenset(removed.getConstraintParameters(k)[:2]) for k in range(removed.getNumConstraints())}
    assert frozenset((10, 11)) in after  # CB stays outside, its hydrogen is inside
    assert before - after == {frozenset(pair) for pair in ((22, 23), (22, 24), (23, 24))}
    kept = remove_regions(system, [region(case, range(22, 26))], remove_constraints=False)
    assert kept.getNumConstraints() == system.getNumConstraints()


def molecules(system):
    return sorted(make_context(system, np.zeros((system.getNumParticles(), 3))).getMolecules())


@pytest.mark.parametrize("particles", [PEPTIDE, SIDE_CHAIN, tuple(range(22, 34)), (*SIDE_CHAIN, *range(22, 26))])
def test_openmm_finds_the_same_molecules_as_before(tip4p_cube, particles):
    case = tip4p_cube
    system = case.force_field.createSystem(
        case.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.8, constraints=app.HBonds
    )
    removed = remove_regions(system, [region(case, particles)])
    assert molecules(removed) == molecules(system)
    without_topology = remove_regions(system, [RegionToRemove("all", tuple(particles), "mechanical")])
    assert molecules(without_topology) == molecules(system)


def test_connectivity_has_no_energy_and_the_force_group_of_the_first_force(amber_vacuum):
    system = copy.deepcopy(amber_vacuum.system)
    system.getForce(0).setForceGroup(7)
    removed = remove_regions(system, [region(amber_vacuum, SIDE_CHAIN)])
    force = removed.getForces()[-1]
    assert force.getName() == CONNECTIVITY_NAME
    assert force.getForceGroup() == 7
    rows = [bare(force.getBondParameters(k)) for k in range(force.getNumBonds())]
    assert [row[:2] for row in rows] == [[10, 11], [10, 12], [10, 13]]
    assert all(row[3] == 0.0 for row in rows)


def test_a_barostat_moves_the_region_as_a_whole(tip4p_cube):
    case = tip4p_cube
    removed = remove_regions(case.system, [region(case, (*PEPTIDE, *range(22, 26)), "electrostatic")])
    removed.addForce(openmm.MonteCarloBarostat(1e4 * unit.bar, 300, 1))
    integrator = openmm.VerletIntegrator(1e-12)
    context = make_context(removed, case.positions, integrator=integrator)
    integrator.step(15)
    state = context.getState(positions=True)
    box = state.getPeriodicBoxVectors()[0][0]._value
    positions = state.getPositions(asNumpy=True)._value
    bonds = [b for r in (PEPTIDE, range(22, 26)) for b in itertools.combinations(r, 2)]
    start, end = (np.array([internal_coordinate(p[list(b)]) for b in bonds]) for p in (case.positions, positions))
    assert abs(box / case.topology.getPeriodicBoxVectors()[0][0]._value - 1) > 1e-3
    assert np.abs(end - start).max() < 1e-6


def test_parameter_offsets_inside_go_and_the_others_stay():
    system, positions = chain()
    force = openmm.NonbondedForce()
    force.addGlobalParameter("scale", 0.7)
    for k in range(8):
        force.addParticle(0.1 * k, 0.3, 0.2)
    inner, outer = force.addException(1, 2, 0.5, 0.3, 0.1), force.addException(5, 6, 0.5, 0.3, 0.1)
    force.addParticleParameterOffset("scale", 1, 0.0, 0.0, 0.3)
    force.addExceptionParameterOffset("scale", inner, 0.2, 0.0, 0.3)
    force.addExceptionParameterOffset("scale", outer, 0.2, 0.0, 0.3)
    system.addForce(force)
    removed = remove_regions(system, [RegionToRemove("pair", (1, 2), "mechanical")])
    r = internal_coordinate(positions[1:3])
    expected = COULOMB * (0.5 + 0.7 * 0.2) / r + lennard_jones(r, 0.3, 0.1 + 0.7 * 0.3)
    assert system_energy(system, positions) - system_energy(removed, positions) == pytest.approx(expected, abs=EXACT)
    assert nonbonded_force(removed).getExceptionParameterOffset(1)[1:] == [outer, 0.2, 0.0, 0.3]
    assert nonbonded_force(removed).getParticleParameterOffset(0)[1:] == [1, 0.0, 0.0, 0.3]
    with pytest.raises(UnsupportedSystemError, match=r"global parameters scale.*mechanical embedding"):
        remove_regions(system, [RegionToRemove("pair", (1, 2), "electrostatic")])


def with_force(force, embedding="mechanical", particles=(1, 2)):
    system, _ = chain()
    charges = openmm.NonbondedForce()
    for _ in range(8):
        charges.addParticle(0.1, 0.3, 0.2)
    system.addForce(charges)
    system.addForce(force)
    return remove_regions(system, [RegionToRemove("part", particles, embedding)])


class Zero:
    def __call__(self, state):
        return 0.0, np.zeros((8, 3))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (openmm.GayBerneForce, "GayBerneForce"),
        (openmm.DrudeForce, "DrudeForce"),
        (openmm.AmoebaMultipoleForce, "AmoebaMultipoleForce"),
        (lambda: openmm.CustomManyParticleForce(3, "distance(p1,p2)"), "CustomManyParticleForce"),
        (lambda: openmm.CustomHbondForce("distance(d1,a1)"), "CustomHbondForce"),
        (lambda: openmm.CustomCVForce("0"), "CustomCVForce"),
        (lambda: openmm.ATMForce(0, 0, 0, 0, 0, 0, 0, 0, 1), "ATMForce"),
        (lambda: openmm.PythonForce(Zero()), "PythonForce"),
    ],
)
def test_a_class_that_is_not_known_is_refused_by_name(make, name):
    with pytest.raises(
        UnsupportedSystemError,
        match=f"force 1, a {name} .*if it is a bias, add it to the System that create_mixed_system returns",
    ):
        with_force(make())


def test_a_torch_force_is_refused_by_name(tmp_path):
    torch = pytest.importorskip("torch")
    openmmtorch = pytest.importorskip("openmmtorch")

    class Nothing(torch.nn.Module):
        def forward(self, positions: torch.Tensor) -> torch.Tensor:
            return 0.0 * positions.sum()

    with pytest.raises(UnsupportedSystemError, match="named 'TorchForce', is of a class"):
        with_force(openmmtorch.TorchForce(torch.jit.trace(Nothing(), torch.zeros(8, 3))))


def test_restraints_thermostats_and_barostats_stay_as_they_are():
    restraint = openmm.CustomExternalForce("k*x^2")
    restraint.addGlobalParameter("k", 1.0)
    restraint.addParticle(1, [])
    centroid = openmm.CustomCentroidBondForce(2, "distance(g1,g2)")
    centroid.addGroup([1])
    centroid.addGroup([2])
    centroid.addBond([0, 1], [])
    for force in (
        restraint,
        centroid,
        openmm.RMSDForce(np.zeros((8, 3)), [1, 2]),
        openmm.CMMotionRemover(10),
        openmm.AndersenThermostat(300, 1),
        openmm.MonteCarloBarostat(1, 300),
        openmm.MonteCarloAnisotropicBarostat(openmm.Vec3(1, 1, 1), 300),
        openmm.MonteCarloFlexibleBarostat(1, 300),
        openmm.CustomVolumeForce("v"),
    ):
        text = openmm.XmlSerializer.serialize(force)
        removed = with_force(force, "electrostatic")
        assert openmm.XmlSerializer.serialize(removed.getForce(1)) == text


def gbsa(n=8):
    force = openmm.GBSAOBCForce()
    for _ in range(n):
        force.addParticle(0.1, 0.15, 0.8)
    return force


def custom_gb(exclusions=False, n=8):
    force = openmm.CustomGBForce()
    force.addEnergyTerm("1", openmm.CustomGBForce.SingleParticle)
    for _ in range(n):
        force.addParticle([])
    if exclusions:
        force.addExclusion(0, 1)
    return force


@pytest.mark.parametrize("make", [gbsa, custom_gb])
def test_implicit_solvent_is_kept_with_mechanical_and_refused_with_electrostatic_embedding(make):
    text = openmm.XmlSerializer.serialize(make())
    assert openmm.XmlSerializer.serialize(with_force(make()).getForce(1)) == text
    with pytest.raises(UnsupportedSystemError, match=r"implicit solvent.*use explicit solvent, or mechanical"):
        with_force(make(), "electrostatic")


def test_implicit_solvent_with_exclusions_is_refused():
    with pytest.raises(UnsupportedSystemError, match=r"has exclusions.*Generalized Born models of openmm.app"):
        with_force(custom_gb(exclusions=True))


def hidden(kind, name, value):
    if kind == "pairs":
        force = openmm.CustomNonbondedForce(f"{name}1*{name}2/r")
        force.addPerParticleParameter(name)
        for _ in range(8):
            force.addParticle([value])
    elif kind == "bonds":
        force = openmm.CustomBondForce(f"{name}/r")
        force.addPerBondParameter(name)
        force.addBond(2, 3, [value])
    elif kind == "compounds":
        force = openmm.CustomCompoundBondForce(2, f"{name}/distance(p1,p2)")
        force.addPerBondParameter(name)
        force.addBond([2, 3], [value])
    else:
        force = openmm.CustomExternalForce(f"{name}*x")
        force.addPerParticleParameter(name)
        force.addParticle(2, [value])
    return force


@pytest.mark.parametrize("name", ["q", "qq", "charge", "chargeprod", "Charge_prod", "q_i"])
@pytest.mark.parametrize("kind", ["pairs", "bonds", "compounds", "field"])
def test_charges_that_hide_in_custom_forces_are_refused_unless_they_are_zero(kind, name):
    with pytest.raises(UnsupportedSystemError, match=f"seems to hold charges.*{name}"):
        with_force(hidden(kind, name, 0.3), "electrostatic")
    with_force(hidden(kind, name, 0.0), "electrostatic")
    with_force(hidden(kind, name, 0.3), "mechanical")
    if kind != "pairs":  # no parameter belongs to these particles
        with_force(hidden(kind, name, 0.3), "electrostatic", particles=(6, 7))


def test_a_custom_force_with_the_coulomb_constant_and_no_charges_is_refused():
    force = openmm.CustomBondForce("138.935*a/r")
    force.addPerBondParameter("a")
    force.addBond(2, 3, [0.1])
    with pytest.raises(UnsupportedSystemError, match="the energy function has the Coulomb constant"):
        with_force(force, "electrostatic")


def test_parameters_that_merely_begin_with_q_or_lie_in_other_interaction_groups_are_accepted():
    with_force(hidden("bonds", "quartic", 0.3), "electrostatic")
    force = hidden("pairs", "q", 0.3)
    force.addInteractionGroup([4, 5], [6, 7])
    with_force(force, "electrostatic")


def test_electrostatic_embedding_refuses_a_reaction_field(amber_vacuum):
    system = copy.deepcopy(amber_vacuum.system)
    nonbonded_force(system).setNonbondedMethod(openmm.NonbondedForce.CutoffNonPeriodic)
    remove_regions(system, [region(amber_vacuum, PEPTIDE)])
    with pytest.raises(UnsupportedSystemError, match=r"reaction field.*use PME with a box or NoCutoff"):
        remove_regions(system, [region(amber_vacuum, PEPTIDE, "electrostatic")])


def test_a_region_that_cuts_a_virtual_site_is_refused(tip4p_cube):
    with pytest.raises(UnsupportedSystemError, match=r"cuts virtual site 25.*add particles 25 "):
        remove_regions(tip4p_cube.system, [region(tip4p_cube, (22, 23, 24))])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", (), "mechanical"), "ascending order"),
        (("a", (2, 1), "mechanical"), "ascending order, got 2, 1"),
        (("a", (1, 1), "mechanical"), "once each"),
        (("a", (1, 2), "electrostatics"), "got 'electrostatics'. Nearest names: electrostatic"),
        (("a", (1, 2), "mechanical", ((1, 3),)), r"bonds \(1, 3\) have an atom outside"),
    ],
)
def test_a_region_that_is_ill_defined_is_refused(arguments, message):
    with pytest.raises(RegionError, match=message):
        RegionToRemove(*arguments)


def test_regions_that_overlap_or_leave_the_system_are_refused(amber_vacuum):
    case = amber_vacuum
    with pytest.raises(RegionError, match="regions 'ligand' and 'other' share particles 10, 11, 12, 13"):
        remove_regions(case.system, [region(case, PEPTIDE), region(case, SIDE_CHAIN, name="other")])
    with pytest.raises(RegionError, match="from 30 to 31, and the System has 31"):
        remove_regions(case.system, [RegionToRemove("water", (30, 31), "mechanical")])
