"""Force field of acetone: GAFF2 with RESP charges, written to ``acetone.xml`` and ``charges.json``.

Needs PySCF and SciPy, and the GAFF2 file of openmmforcefields; the builder needs only the written files.
"""

import json
import xml.etree.ElementTree as ET
from itertools import permutations
from pathlib import Path

import numpy as np
import pyscf
from pyscf import gto, scf
from scipy.optimize import minimize

from systems import package_data
from systems.package_data import PackageFile

FOLDER = Path(__file__).resolve().parent

# Version 2.11: in 2.2.20, o-c-c3-hc has one- and twofold torsions of 17 and 15 kJ/mol, which cancel over
# the three hydrogens of an undistorted methyl group, and no threefold one.
GAFF2 = PackageFile(
    "openmmforcefields",
    "0.15.1",
    "openmmforcefields/ffxml/amber/gaff/ffxml/gaff-2.11.xml",
    "d082d3ad839c9efaac4f15c3c5aec518f72531fca886189dfe30f6d7690fd0da",
)

ATOMS = ("C1", "C2", "O", "C3", "H11", "H12", "H13", "H31", "H32", "H33")
ELEMENTS = ("C", "C", "O", "C", "H", "H", "H", "H", "H", "H")
TYPES = ("c3", "c", "o", "c3", "hc", "hc", "hc", "hc", "hc", "hc")
BONDS = ((0, 1), (1, 2), (1, 3), (0, 4), (0, 5), (0, 6), (3, 7), (3, 8), (3, 9))
METHYL_CARBONS = (0, 3)
METHYL_HYDROGENS = (4, 5, 6, 7, 8, 9)

# Close to the minimum, bohr; the optimisation does the rest.
_GUESS = np.array(
    [
        [0.00, 2.43, -1.16],
        [0.00, 0.00, 0.35],
        [0.00, 0.00, 2.62],
        [0.00, -2.43, -1.16],
        [0.00, 4.05, 0.10],
        [1.65, 2.53, -2.38],
        [-1.65, 2.53, -2.38],
        [0.00, -4.05, 0.10],
        [1.65, -2.53, -2.38],
        [-1.65, -2.53, -2.38],
    ]
)

# Merz-Kollman surfaces: radii in angstrom times four factors.
# Source: Singh and Kollman, J. Comput. Chem. 5, 129 (1984); Besler, Merz and Kollman, ibid. 11, 431 (1990).
_RADII = {"H": 1.20, "C": 1.50, "O": 1.40}
_SHELLS = (1.4, 1.6, 1.8, 2.0)
_POINTS_PER_SQUARE_ANGSTROM = 5.0
# RESP: strength of the hyperbolic restraint in the two stages and its width, atomic units.
# Source: Bayly, Cieplak, Cornell and Kollman, J. Phys. Chem. 97, 10269 (1993).
_STRENGTH = (0.0005, 0.001)
_WIDTH = 0.1


def optimise() -> tuple[np.ndarray, scf.hf.RHF]:
    """Optimise acetone with HF/6-31G*.

    Returns
    -------
    positions : (10, 3) float array, bohr
        The minimum.
    mean_field : pyscf.scf.hf.RHF
        Converged there.
    """
    molecule = gto.M(atom=list(zip(ELEMENTS, _GUESS, strict=True)), unit="Bohr", basis="6-31g*", verbose=0, cart=True)
    mean_field = scf.RHF(molecule)
    mean_field.conv_tol = 1e-11
    scanner = mean_field.nuc_grad_method().as_scanner()

    def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
        energy, gradient = scanner(molecule.set_geom_(x.reshape(-1, 3), unit="Bohr", inplace=False))
        return energy, gradient.ravel()

    result = minimize(evaluate, _GUESS.ravel(), jac=True, method="BFGS", options={"gtol": 1e-5})
    positions = result.x.reshape(-1, 3)
    final = scf.RHF(molecule.set_geom_(positions, unit="Bohr", inplace=False))
    final.conv_tol = 1e-11
    final.kernel()
    return positions, final


def surface_points(positions: np.ndarray) -> np.ndarray:
    """Points of the Merz-Kollman shells around acetone.

    Parameters
    ----------
    positions : (10, 3) float array, bohr
        Atoms.

    Returns
    -------
    (n_points, 3) float array, bohr
        Points of each shell that lie inside no other atom's sphere of that shell.
    """
    angstrom = 1.0 / pyscf.data.nist.BOHR
    radii = np.array([_RADII[element] for element in ELEMENTS]) * angstrom
    points = []
    for factor in _SHELLS:
        for atom, radius in enumerate(radii * factor):
            area = 4 * np.pi * (radius / angstrom) ** 2
            shell = positions[atom] + radius * _fibonacci_sphere(round(area * _POINTS_PER_SQUARE_ANGSTROM))
            distances = np.linalg.norm(shell[:, None] - positions[None], axis=-1)
            points.append(shell[(distances > radii * factor - 1e-9).all(axis=1)])
    return np.concatenate(points)


def _fibonacci_sphere(n_points: int) -> np.ndarray:
    """Points spread evenly on the unit sphere, (n_points, 3)."""
    k = np.arange(n_points) + 0.5
    z = 1 - 2 * k / n_points
    angle = np.pi * (1 + np.sqrt(5)) * k
    return np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1)


def electrostatic_potential(mean_field: scf.hf.RHF, points: np.ndarray) -> np.ndarray:
    """Potential of nuclei and electrons.

    Parameters
    ----------
    mean_field : pyscf.scf.hf.RHF
        Converged.
    points : (n_points, 3) float array, bohr
        Where.

    Returns
    -------
    (n_points,) float array, hartree/e
        The potential.
    """
    molecule = mean_field.mol
    distances = np.linalg.norm(points[:, None] - molecule.atom_coords()[None], axis=-1)
    nuclear = (molecule.atom_charges() / distances).sum(axis=1)
    density = mean_field.make_rdm1()
    electronic = np.concatenate(
        [
            np.einsum("pij,ij->p", molecule.intor("int1e_grids", grids=block), density)
            for block in np.array_split(points, 20)
        ]
    )
    return np.asarray(nuclear - electronic)


def fit_charges(positions: np.ndarray, points: np.ndarray, potential: np.ndarray) -> tuple[np.ndarray, float]:
    """RESP charges in two stages, with the two methyl groups alike.

    Parameters
    ----------
    positions : (10, 3) float array, bohr
        Atoms.
    points : (n_points, 3) float array, bohr
        Where the potential is known.
    potential : (n_points,) float array, hartree/e
        The potential to reproduce.

    Returns
    -------
    charges : (10,) float array, elementary charge
        They sum to zero.
    error : float
        Root-mean-square error relative to the root-mean-square potential.
    """
    design = 1.0 / np.linalg.norm(points[:, None] - positions[None], axis=-1)
    # Hydrogens in the carbonyl plane may differ from the others at first.
    first_groups = [[0, 3], [1], [2], [4, 7], [5, 6, 8, 9]]
    charges = _fit_stage(design, potential, first_groups, np.zeros(len(ATOMS)), _STRENGTH[0])
    second_groups = [list(METHYL_CARBONS), list(METHYL_HYDROGENS)]
    fixed = charges.copy()
    fixed[[*METHYL_CARBONS, *METHYL_HYDROGENS]] = 0.0
    charges = _fit_stage(design, potential, second_groups, fixed, _STRENGTH[1])
    residual = design @ charges - potential
    return charges, float(np.sqrt((residual**2).mean() / (potential**2).mean()))


def _fit_stage(
    design: np.ndarray, potential: np.ndarray, groups: list[list[int]], fixed: np.ndarray, strength: float
) -> np.ndarray:
    """Charges of one RESP stage: atoms of a group are alike, `fixed` holds the other atoms' charges."""
    spread = np.zeros((len(fixed), len(groups)))
    for column, group in enumerate(groups):
        spread[group, column] = 1.0
    matrix = design @ spread
    normal = matrix.T @ matrix
    right = matrix.T @ (potential - design @ fixed)
    counts = spread.sum(axis=0)
    heavy = np.array([ELEMENTS[group[0]] != "H" for group in groups])
    free = np.zeros(len(groups))
    for _ in range(200):
        restraint = np.where(heavy, strength / np.sqrt(free**2 + _WIDTH**2), 0.0) * counts
        system = np.block([[normal + np.diag(restraint), counts[:, None]], [counts[None], np.zeros((1, 1))]])
        new = np.linalg.solve(system, np.append(right, -fixed.sum()))[:-1]
        if np.abs(new - free).max() < 1e-10:
            break
        free = new
    return np.asarray(fixed + spread @ free)


def write_force_field(charges: np.ndarray, gaff: Path) -> None:
    """Write ``acetone.xml`` with the GAFF2 terms that acetone needs.

    Parameters
    ----------
    charges : (10,) float array, elementary charge
        They are rounded to 1e-6 with the sum kept at zero.
    gaff : pathlib.Path
        GAFF2 of openmmforcefields.
    """
    source = ET.parse(gaff).getroot()
    root = ET.Element("ForceField")
    types = ET.SubElement(root, "AtomTypes")
    wanted = set(TYPES)
    types.extend(element for element in source.iterfind("AtomTypes/Type") if element.get("name") in wanted)
    residues = ET.SubElement(root, "Residues")
    residue = ET.SubElement(residues, "Residue", name="ACN")
    for name, kind, charge in zip(ATOMS, TYPES, charges, strict=True):
        ET.SubElement(residue, "Atom", name=name, type=kind, charge=f"{charge:.6f}")
    for a, b in BONDS:
        ET.SubElement(residue, "Bond", atomName1=ATOMS[a], atomName2=ATOMS[b])

    for section, tag, tuples in (
        ("HarmonicBondForce", "Bond", _paths(2)),
        ("HarmonicAngleForce", "Angle", _paths(3)),
    ):
        _copy_terms(root, source, section, {tag: tuples})
    impropers = {("c", *outer) for outer in permutations(("c3", "c3", "o"))}
    _copy_terms(root, source, "PeriodicTorsionForce", {"Proper": _paths(4), "Improper": impropers})
    nonbonded = source.find("NonbondedForce")
    if nonbonded is None:
        raise ValueError(f"{gaff.name} has no NonbondedForce; give the GAFF2 file of openmmforcefields")
    target = ET.SubElement(root, "NonbondedForce", nonbonded.attrib)
    ET.SubElement(target, "UseAttributeFromResidue", name="charge")
    target.extend(element for element in nonbonded.iterfind("Atom") if element.get("class") in wanted)
    ET.indent(root, "  ")
    header = (
        "<!-- Acetone: GAFF2 2.11 parameters as in openmmforcefields 0.15.1 (MIT),\n"
        "     RESP charges from HF/6-31G*. See README.md for sources. -->\n"
    )
    text = header + ET.tostring(root, encoding="unicode") + "\n"
    (FOLDER / "acetone.xml").write_text(text, encoding="utf-8")


def _paths(length: int) -> set[tuple[str, ...]]:
    """Atom types along all chains of bonded atoms."""
    neighbours: dict[int, list[int]] = {atom: [] for atom in range(len(ATOMS))}
    for a, b in BONDS:
        neighbours[a].append(b)
        neighbours[b].append(a)
    chains = [[atom] for atom in neighbours]
    for _ in range(length - 1):
        chains = [[*chain, new] for chain in chains for new in neighbours[chain[-1]] if new not in chain]
    return {tuple(TYPES[atom] for atom in chain) for chain in chains}


def _copy_terms(root: ET.Element, source: ET.Element, section: str, wanted: dict[str, set[tuple[str, ...]]]) -> None:
    """Copy the terms of one Force that match the wanted types; an empty class matches every type."""
    original = source.find(section)
    if original is None:
        raise ValueError(f"the GAFF2 file has no {section}; give the one of openmmforcefields")
    target = ET.SubElement(root, section, original.attrib)
    for element in original:
        length = {"Bond": 2, "Angle": 3}.get(element.tag, 4)
        classes = [element.get(f"class{k + 1}", "") for k in range(length)]
        if any(
            all(given in ("", kind) for given, kind in zip(classes, types, strict=True))
            for types in wanted.get(element.tag, set())
        ):
            target.append(element)


def write_parameters() -> None:
    """Optimise, fit and write ``charges.json`` and ``acetone.xml``; takes a few minutes."""
    (gaff,) = package_data.find(GAFF2)
    positions, mean_field = optimise()
    points = surface_points(positions)
    charges, error = fit_charges(positions, points, electrostatic_potential(mean_field, points))
    charges = np.round(charges, 6)
    # Rounding leaves a few 1e-6 e; the carbonyl carbon takes them.
    charges[1] -= charges.sum()
    write_force_field(charges, gaff)
    document = {
        "method": "RHF/6-31G* optimised geometry and density, RESP in two stages, Merz-Kollman shells",
        "pyscf": pyscf.__version__,
        "energy_hartree": round(float(mean_field.e_tot), 8),
        "n_points": len(points),
        "relative_rms_error": round(error, 4),
        "dipole_qm_debye": round(float(np.linalg.norm(mean_field.dip_moment(verbose=0))), 4),
        "dipole_charges_debye": round(float(np.linalg.norm(charges @ positions)) * float(pyscf.data.nist.AU2DEBYE), 4),
        "positions_bohr": {name: [round(float(x), 6) for x in row] for name, row in zip(ATOMS, positions, strict=True)},
        "charges_e": {name: round(float(charge), 6) for name, charge in zip(ATOMS, charges, strict=True)},
    }
    (FOLDER / "charges.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
