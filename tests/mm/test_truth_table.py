"""What electrostatic embedding has to show, row by row, on alanine dipeptide cut at CA-CB and acetone in water.

Energies and gradients are those of one term, in atomic units: what qmmlmm adds to OpenMM's own energy. Fixed charges
against plain PME are in tests/embedding/test_surroundings_field.py, point charges without a box against PySCF in
tests/qm/test_external_field.py, and the drift of dynamics in tests/benchmarks/energy_conservation.py.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import openmm
import pytest

from qmmlmm import Hamiltonian, MLPotential, PySCFPotential, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.embedding.near_mesh import NARROW_REACH
from qmmlmm.geometry import Geometry
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, NM_IN_BOHR, FloatArray
from systems import acetone_water, alanine_dipeptide
from tests.contexts import system_energy_and_forces
from tests.finite_differences import central_difference
from tests.toy_potentials import PolarisableModel
from tests.toy_systems import nearest_images, nonbonded_force

N, HA, CA, C = 6, 9, 8, 14
SIDE_CHAIN = (10, 11, 12, 13)

HF_TOLERANCE = 1e-6  # hartree/bohr
XTB_TOLERANCE = 1e-6  # hartree/bohr
DFT_TOLERANCE = 1e-5  # hartree/bohr, at grid level 3
ML_TOLERANCE = 1e-7  # relative to the force on the atom, in float64
NET_TOLERANCE = 1e-8  # hartree/bohr, and hartree for the torque
ALPHA_TOLERANCE = 1e-6  # hartree
# Central differences err by E''' h^2/6 with E''' of some hartree/bohr^3 for bonds, and by the noise of the energy, some
# 1e-13 hartree, over 2 h: 1e-7 and 1e-10 at this step. The softer the atom is held, the longer the step may be.
FORCE = "hartree/bohr"
STEP = 5e-4  # bohr
SOFT_STEP = 0.01
FAR_STEP = 0.05
# In the field of a far atom the region's charge looks like a few moments: forces of 1e-6 to 1e-4 hartree/bohr.
FAR_TOLERANCE = 1e-9  # hartree/bohr
# What is left at the cutoffs: erfc(4.5) = 2e-10 of the interaction of unit charges there, 0.05 hartree; for the
# integrals erfc(4.6) = 8e-11 of that with a nucleus and with the tail of the density, which reaches closer.
JUMP_TOLERANCE = 2e-11  # hartree
INTEGRALS_TOLERANCE = 2e-10  # hartree

SCHEMES = ("rcd", "rc", "shift", "zero")
# nm; the nearest boundary charges are 0.1 nm from the link atom, where a charge of this width has lost 4 %.
WIDTH = 0.07
Function = Callable[[FloatArray], tuple[float, FloatArray]]


@functools.cache
def peptide(periodic: bool):
    if periodic:
        return alanine_dipeptide.build(constraints=None, rigid_water=False)
    return alanine_dipeptide.build(vacuum=True, constraints=None)


def geometry_of(structure) -> Geometry:
    """Where its particles are, bohr."""
    return Geometry.from_quantities(structure.positions, structure.topology.getPeriodicBoxVectors()).in_bohr()


def positions_of(structure) -> FloatArray:
    return geometry_of(structure).positions


def box_of(structure) -> FloatArray | None:
    return geometry_of(structure).box


def mixed_of(structure, potential, scheme="rcd", smeared_charges=None, **region_options):
    region = Region("side chain", SIDE_CHAIN, **region_options)
    term = Term(potential, region, embedding="electrostatic", boundary_charges=scheme, smeared_charges=smeared_charges)
    return create_mixed_system(structure.topology, structure.system, Hamiltonian([term]), ml_backend="pythonforce")


def qm_potential(method="hf", basis="sto-3g") -> PySCFPotential:
    # Forces are exact at any embedding grid; the smallest is the fastest.
    return PySCFPotential(method, basis, conv_tol=1e-12, embedding_grid_level=0, density_fit=False)


def ml_potential() -> MLPotential:
    return MLPotential(PolarisableModel(), elements=[1, 6], embeddings=["electrostatic"])


def qm_function(structure, method="hf", basis="sto-3g", scheme="rcd", **region_options) -> Function:
    """Energy and gradient of the QM term, the density converged to far below what is tested."""
    term = mixed_of(structure, qm_potential(method, basis), scheme, **region_options).evaluated_term("side chain/QM")
    box = box_of(structure)
    return lambda positions: term.energy_and_gradient(Geometry(positions, box))


def xtb_potential(method="gfn2-xtb", **settings) -> XTBPotential:
    return XTBPotential(method, **({"accuracy": 1e-4} | settings))


def xtb_function(structure, potential=None, scheme="rcd", **region_options) -> Function:
    """Energy and gradient of the xTB term, the density converged to far below what is tested."""
    mixed = mixed_of(structure, potential or xtb_potential(), scheme, **region_options)
    term, box = mixed.evaluated_term("side chain/XTB"), box_of(structure)
    return lambda positions: term.energy_and_gradient(Geometry(positions, box))


def ml_function(structure, **region_options) -> Function:
    term = mixed_of(structure, ml_potential(), **region_options).terms["side chain/ML"].runner.region_term
    box = box_of(structure)

    def compute(positions: FloatArray) -> tuple[float, FloatArray]:
        energy, forces = term.compute(Geometry(positions, box).in_nm())
        return energy / HARTREE_IN_KJ_PER_MOL, -forces / FORCE_AU_IN_OPENMM

    return compute


def difference(function: Function, positions: FloatArray, direction: FloatArray, step: float, points: int = 2) -> float:
    """Central difference of the energy along a direction, with two or four points."""
    return central_difference(lambda x: function(x)[0], positions, direction, step, points)


def along(positions: FloatArray, atom: int, axis: int) -> FloatArray:
    direction = np.zeros_like(positions)
    direction[atom, axis] = 1.0
    return direction


def near_and_far(structure, count=10) -> tuple[list[int], list[int]]:
    """The MM atoms closest to the region and furthest from it, the peptide left out."""
    geometry = geometry_of(structure)
    away = nearest_images(geometry.positions[22:] - geometry.positions[SIDE_CHAIN[0]], geometry.box)
    order = 22 + np.argsort(np.linalg.norm(away, axis=1))
    return [int(a) for a in order[:count]], [int(a) for a in order[-count:]]


def largest_error(function: Function, positions: FloatArray, atoms, step: float, axes=(0, 1, 2)) -> float:
    _, gradient = function(positions)
    return max(
        abs(difference(function, positions, along(positions, atom, axis), step) - gradient[atom, axis])
        for atom, axis in itertools.product(atoms, axes)
    )


# --- without a box: every scheme, every atom ---

PLACES = [
    *((scheme, "ratio", None) for scheme in SCHEMES),
    ("rcd", "distance", None),
    ("rcd", "ratio", WIDTH),
    pytest.param("shift", "ratio", {CA: WIDTH, N: WIDTH, HA: 0.05, C: WIDTH}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("scheme", "rule", "smeared"), PLACES)
def test_without_a_box_forces_on_all_atoms_are_derivatives_and_net_force_and_torque_vanish(
    truth, scheme, rule, smeared
):
    structure = peptide(False)
    function = qm_function(structure, scheme=scheme, link_rule=rule, smeared_charges=smeared)
    check_without_a_box(truth, "HF", function, structure)


XTB = [
    pytest.param(xtb_potential(), None, id="GFN2"),
    pytest.param(xtb_potential("gfn1-xtb"), None, id="GFN1"),
    pytest.param(xtb_potential(), WIDTH, id="GFN2, smeared charges"),
    pytest.param(xtb_potential(multipoles=2), WIDTH, id="GFN2 with quadrupoles, smeared charges"),
    pytest.param(xtb_potential("gfn1-xtb", multipoles=2), None, id="GFN1 with quadrupoles"),
]


@pytest.mark.parametrize(("potential", "smeared"), XTB)
def test_without_a_box_xtb_forces_are_derivatives_and_net_force_and_torque_vanish(truth, potential, smeared):
    structure = peptide(False)
    check_without_a_box(truth, "GFN-xTB", xtb_function(structure, potential, smeared_charges=smeared), structure)


def check_without_a_box(truth, level: str, function: Function, structure) -> None:
    positions = positions_of(structure)
    assert len(positions) == 22
    _, gradient = function(positions)
    where = f"{level}, cut bond, each scheme of boundary charges, no box"
    truth.below(f"{where}: net force", abs(gradient.sum(axis=0)).max(), NET_TOLERANCE, FORCE)
    torque = np.cross(positions - positions.mean(axis=0), gradient).sum(axis=0)
    truth.below(f"{where}: net torque", abs(torque).max(), NET_TOLERANCE, "hartree")
    error = largest_error(function, positions, range(22), STEP)
    truth.below(f"{where}: forces on all atoms, central differences", error, HF_TOLERANCE, FORCE)
    assert np.linalg.norm(gradient, axis=1).min() > 5 * HF_TOLERANCE


# --- in a box ---

ATOMS = {"region": "the region", "hosts": "the hosts of the link atom", "near": "near atoms", "far": "far atoms"}
IN_THE_BOX = [("ratio", None), ("distance", None), pytest.param("ratio", WIDTH, marks=pytest.mark.slow)]


def check_in_the_box(truth, level: str, function: Function, structure, tolerance: float, axes) -> None:
    positions = positions_of(structure)
    near, far = near_and_far(structure)
    found = {
        "region": largest_error(function, positions, SIDE_CHAIN, STEP, axes),
        "hosts": largest_error(function, positions, (CA, N, HA, C), STEP, axes),
        "near": largest_error(function, positions, near, SOFT_STEP, axes[:1]),
        "far": largest_error(function, positions, far, FAR_STEP, axes[:1]),
    }
    for atoms, error in found.items():
        limit = max(FAR_TOLERANCE, 1e-2 * tolerance) if atoms == "far" else tolerance
        truth.below(f"{level}, PME: forces on {ATOMS[atoms]}, central differences", error, limit, FORCE)
    _, gradient = function(positions)
    # All that was tested feels the region, so that no zero was compared with zero.
    assert np.linalg.norm(gradient[[*SIDE_CHAIN, CA, N, HA, C, *near]], axis=1).min() > 10 * HF_TOLERANCE
    assert np.linalg.norm(gradient[far], axis=1).min() > 10 * FAR_TOLERANCE


@pytest.mark.parametrize(("rule", "smeared"), IN_THE_BOX)
def test_periodic_hartree_fock_forces_are_derivatives_for_region_hosts_near_and_far_atoms(truth, rule, smeared):
    structure = peptide(True)
    function = qm_function(structure, link_rule=rule, smeared_charges=smeared)
    check_in_the_box(truth, "HF/STO-3G", function, structure, HF_TOLERANCE, (1,))


@pytest.mark.parametrize(("potential", "smeared"), XTB)
def test_periodic_xtb_forces_are_derivatives_for_region_hosts_near_and_far_atoms(truth, potential, smeared):
    structure = peptide(True)
    function = xtb_function(structure, potential, smeared_charges=smeared)
    check_in_the_box(truth, "GFN-xTB", function, structure, XTB_TOLERANCE, (0, 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "tolerance"), [("hf", HF_TOLERANCE), ("pbe", DFT_TOLERANCE)])
def test_periodic_forces_are_derivatives_along_every_axis_in_a_larger_basis(truth, method, tolerance):
    structure = peptide(True)
    function = qm_function(structure, method, "6-31g*")
    check_in_the_box(truth, f"{method.upper()}/6-31G*", function, structure, tolerance, (0, 1, 2))


@pytest.mark.parametrize(("rule", "smeared"), IN_THE_BOX)
def test_periodic_ml_forces_are_derivatives_for_region_hosts_near_and_far_atoms(truth, rule, smeared):
    structure = peptide(True)
    function = ml_function(structure, link_rule=rule, smeared_charges=smeared)
    positions = positions_of(structure)
    _, gradient = function(positions)
    near, far = near_and_far(structure)
    groups = {"region": SIDE_CHAIN, "hosts": (CA, N, HA, C), "near": near, "far": far}
    for (name, atoms), step in zip(groups.items(), (1e-3, 1e-3, SOFT_STEP, FAR_STEP), strict=True):
        errors = []
        for atom, axis in itertools.product(atoms, range(3)):
            expected = difference(function, positions, along(positions, atom, axis), step, points=4)
            errors.append(abs(gradient[atom, axis] - expected) / np.linalg.norm(gradient[atom]))
        check = f"ML in double precision, PME: forces on {ATOMS[name]}, central differences"
        truth.below(check, max(errors), ML_TOLERANCE, "relative")


def with_mesh(structure, alpha=None, tolerance=5e-4, finer=1):
    """The structure with the mesh that OpenMM's rule gives for this splitting, 1/nm, and tolerance, or a finer one."""
    system = openmm.XmlSerializer.clone(structure.system)
    force = nonbonded_force(system)
    if alpha is None:
        alpha = np.sqrt(-np.log(2.0 * tolerance)) / force.getCutoffDistance()._value
    edges = np.diag(box_of(structure)) / NM_IN_BOHR
    force.setPMEParameters(
        alpha, *(int(np.ceil(finer * 2.0 * alpha * edge / (3.0 * tolerance**0.2))) for edge in edges)
    )
    return SimpleNamespace(topology=structure.topology, system=system, positions=structure.positions)


def test_the_net_force_under_pme_is_no_larger_than_that_of_openmm(truth):
    structure = peptide(True)
    _, gradient = qm_function(structure)(positions_of(structure))
    ours = np.linalg.norm(gradient.sum(axis=0))
    # It is the error of the force field's mesh, felt by each nucleus and its electrons, and no other.
    _, gradient = qm_function(with_mesh(structure, finer=2))(positions_of(structure))
    of_finer_mesh = np.linalg.norm(gradient.sum(axis=0))
    assert of_finer_mesh < 0.5 * ours
    net = []
    for charged in (True, False):  # what the charges of the region add in the force field
        system = openmm.System()
        for k in range(structure.system.getNumParticles()):
            system.addParticle(structure.system.getParticleMass(k))
        force = openmm.XmlSerializer.clone(nonbonded_force(structure.system))
        if not charged:
            for atom in SIDE_CHAIN:
                force.setParticleParameters(atom, 0.0, *force.getParticleParameters(atom)[1:])
        system.addForce(force)
        system.setDefaultPeriodicBoxVectors(*structure.topology.getPeriodicBoxVectors())
        _, forces = system_energy_and_forces(system, structure.positions)
        net.append(forces.sum(axis=0) / FORCE_AU_IN_OPENMM)
    openmms = np.linalg.norm(net[0])
    of_region = np.linalg.norm(net[0] - net[1])
    print(
        f"net force, hartree/bohr: QM term {ours:.2e}, with a finer mesh {of_finer_mesh:.2e}, OpenMM {openmms:.2e}, "
        f"of which region {of_region:.2e}"
    )
    truth.below("HF, PME: net force over that of OpenMM's whole System", ours / openmms, 0.2, "")


# --- the splitting is nobody's business ---

# Meshes of OpenMM's default tolerance and PySCFPotential's default grid. Over five places of the system on the mesh the
# difference is 6e-7 hartree rms. It is the error of the mesh, and not of the same size everywhere: with a splitting of
# 4.8/nm and these meshes up to 5e-6 hartree were seen; with a tolerance of 1e-4 the difference is below 1.3e-6.


ALPHAS = (2.92, 1.6 * 2.92)  # 1/nm


def acetone_energies(potential, scale: float = 1.0) -> list[float]:
    """Energies of the term at each splitting, in a box that a barostat has scaled with all molecules in it."""
    structure = acetone_water.build()
    geometry = geometry_of(structure)
    moved = scaled_box(structure.topology, geometry, scale)
    energies = []
    for alpha in ALPHAS:
        changed = with_mesh(structure, alpha=alpha)
        term = Term(potential, Region("acetone", acetone_water.builder.ACETONE), embedding="electrostatic")
        mixed = create_mixed_system(structure.topology, changed.system, Hamiltonian([term]))
        energy, _ = mixed.evaluated_term(f"acetone/{potential.level}").energy_and_gradient(moved)
        energies.append(energy)
    print(f"alpha times 1.6 changes the energy by {energies[1] - energies[0]:.2e} hartree")
    return energies


def scaled_box(topology, geometry: Geometry, scale: float) -> Geometry:
    """Scale the box and the centres of the molecules, as OpenMM's barostat does."""
    positions = geometry.positions.copy()
    for residue in topology.residues():
        atoms = [atom.index for atom in residue.atoms()]
        positions[atoms] += (scale - 1.0) * positions[atoms].mean(axis=0)
    return Geometry(positions, geometry.box * scale)


def test_the_energy_of_acetone_in_water_does_not_depend_on_the_splitting(truth):
    energies = acetone_energies(PySCFPotential("hf", "3-21g", conv_tol=1e-11))
    change = energies[1] - energies[0]
    truth.below("HF, acetone in water: energy with alpha times 1.6", change, ALPHA_TOLERANCE, "hartree")


@pytest.mark.parametrize("method", ["gfn2-xtb", "gfn1-xtb"])
@pytest.mark.parametrize("scale", [1.0, 1.01])
def test_the_xtb_energy_of_acetone_does_not_depend_on_the_splitting_in_any_box(truth, method, scale):
    energies = acetone_energies(xtb_potential(method), scale)
    change = energies[1] - energies[0]
    truth.below("GFN-xTB, acetone in water: energy with alpha times 1.6", change, ALPHA_TOLERANCE, "hartree")


def test_the_xtb_energy_is_a_smooth_function_of_the_box(truth):
    structure = acetone_water.build()
    geometry = geometry_of(structure)
    term = Term(xtb_potential(), Region("acetone", acetone_water.builder.ACETONE), embedding="electrostatic")
    mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term]))
    evaluated = mixed.evaluated_term("acetone/XTB")
    scales = np.linspace(0.998, 1.002, 21)
    energies = [evaluated.energy_and_gradient(scaled_box(structure.topology, geometry, s))[0] for s in scales]
    y = np.array(energies) - energies[0]
    fitted = np.polynomial.Polynomial.fit(scales, y, 6)(scales)
    print(f"scaling changes the energy by {np.ptp(y):.1e} hartree, {abs(y - fitted).max():.1e} from smooth")
    assert np.ptp(y) > 1e6 * JUMP_TOLERANCE
    jump = abs(y - fitted).max()
    truth.below("GFN-xTB, box scaled in steps: energy from a smooth curve", jump, JUMP_TOLERANCE, "hartree")


# --- nothing happens at cutoffs and faces of the box ---


def scan(function: Function, positions: FloatArray, atom: int, direction: FloatArray, step=1e-3, n=21) -> float:
    """Move an atom and return how far the energy is from a smooth curve, a polynomial of fifth order."""
    shifts = np.arange(n) - (n - 1) / 2
    energies = []
    for shift in shifts:
        moved = positions.copy()
        moved[atom] += shift * step * direction
        energies.append(function(moved)[0])
    x = shifts / shifts.max()
    y = np.array(energies) - energies[0]
    return float(abs(y - np.polynomial.Polynomial.fit(x, y, 5)(x)).max())


def at_distance(structure, layout, reach: float, of_center: bool) -> tuple[FloatArray, int, FloatArray]:
    """Put a water oxygen just so far from the region's center, or from its nearest site."""
    geometry = geometry_of(structure)
    positions = geometry.positions
    q1, m1 = layout.atoms[layout.link_bonds[0, 0]], layout.link_bonds[0, 1]
    link = positions[q1] + layout.link_ratios[0] * (positions[m1] - positions[q1])
    sites = np.vstack([positions[layout.atoms], link])
    if of_center:
        center = sites.mean(axis=0)
        reach += np.linalg.norm(sites - center, axis=1).max()
        sites = center[None]
    away = nearest_images(positions[22::3, None] - sites, geometry.box)
    distances = np.linalg.norm(away, axis=2)
    nearest = distances.argmin(axis=1)
    k = int(np.argmin(abs(distances.min(axis=1) - reach)))
    direction = away[k, nearest[k]] / distances[k, nearest[k]]
    atom = 22 + 3 * k
    positions[atom] += (reach - distances[k, nearest[k]]) * direction
    return positions, atom, direction


FUNCTIONS = {"QM": qm_function, "ML": ml_function, "XTB": xtb_function}
NAMES = {"QM": "HF", "ML": "ML", "XTB": "GFN-xTB"}
POTENTIALS = {"QM": qm_potential, "ML": ml_potential, "XTB": xtb_potential}


# Where a charge leaves a sum: of all near sources, of those that the QM integrals take, of those on the finer mesh.
@pytest.mark.parametrize(
    ("level", "place"),
    [("ML", "sources"), ("QM", "sources"), ("QM", "integrals"), ("QM", "mesh"), ("XTB", "sources")],
)
def test_the_energy_is_smooth_when_an_atom_crosses_a_cutoff(truth, level, place):
    structure = peptide(True)
    function = FUNCTIONS[level](structure)
    mixed = mixed_of(structure, POTENTIALS[level]())
    layout = mixed.terms[f"side chain/{level}"].layout
    reach = layout.surroundings.short_range_cutoff
    if place == "integrals":
        reach = NARROW_REACH / qm_potential().capabilities.splitting
    scanned = scan(function, *at_distance(structure, layout, reach, of_center=place == "sources"))
    limit = INTEGRALS_TOLERANCE if place == "integrals" else JUMP_TOLERANCE
    truth.below(f"{NAMES[level]}, an atom crosses a cutoff: energy from a smooth curve", scanned, limit, "hartree")


@pytest.mark.parametrize("level", sorted(FUNCTIONS))
def test_the_energy_is_smooth_when_an_atom_crosses_the_face_of_the_box(truth, level):
    structure = peptide(True)
    function = FUNCTIONS[level](structure)
    positions, box = positions_of(structure), box_of(structure)
    fractional = positions[22:] @ np.linalg.inv(box)
    atom = 22 + int(np.argmin(abs(fractional[:, 0] - 1.0)))
    positions[atom] += (1.0 - fractional[atom - 22, 0]) * box[0]
    scanned = scan(function, positions, atom, np.array([1.0, 0.0, 0.0]))
    check = f"{NAMES[level]}, an atom crosses a face of the box: energy from a smooth curve"
    truth.below(check, scanned, JUMP_TOLERANCE, "hartree")
