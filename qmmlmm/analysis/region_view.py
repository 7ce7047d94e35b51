"""A view in three dimensions, for notebooks: regions, link atoms and charges in their surroundings."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from openmm import unit
from scipy.spatial import cKDTree

from qmmlmm.embedding.region_geometry import nearest_displacements
from qmmlmm.errors import MissingDependencyError
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.setting_checks import check_array, check_flag, check_instance, check_quantity
from qmmlmm.units import BOHR_IN_NM, FloatArray, IntArray, Scalar, Vectors

if TYPE_CHECKING:
    import py3Dmol

ANGSTROM_IN_NM = 0.1
LINK_COLOUR = "#d55e00"
LINK_RADIUS = 0.35
CHARGE_RADIUS = 0.25
SMALLEST_CHARGE = 0.05
"""Charge, e, below which no sphere is drawn."""
WIDTH, HEIGHT = 640, 420


@dataclass(frozen=True, eq=False)
class RegionScene:
    """What a view shows, around the first region and at nearest images, angstrom.

    Parameters
    ----------
    region : (n,) int array
        Atoms of all regions.
    symbols : tuple of str
        Element symbols of the atoms of the regions.
    positions : (n, 3) float array, angstrom
    bonds : tuple of (int, int)
        Rows in `positions`.
    links : (l, 3) float array, angstrom
        Places of the link atoms.
    link_bonds : tuple of (int, int)
        Row in `positions` and row in `links`.
    charges : (m,) float array, e
        Charges around the regions that they feel, also those that a boundary scheme puts on bonds; none with mechanical
        embedding.
    charge_positions : (m, 3) float array, angstrom
    """

    region: IntArray
    symbols: tuple[str, ...]
    positions: FloatArray
    bonds: tuple[tuple[int, int], ...]
    links: FloatArray
    link_bonds: tuple[tuple[int, int], ...]
    charges: FloatArray
    charge_positions: FloatArray

    def xyz(self) -> str:
        """Return the atoms of the regions and the link atoms, as hydrogen, in the format XYZ."""
        text = io.StringIO()
        text.write(f"{len(self.symbols) + len(self.links)}\n\n")
        rows = [*zip(self.symbols, self.positions, strict=True), *(("H", place) for place in self.links)]
        for symbol, (x, y, z) in rows:
            text.write(f"{symbol} {x:.4f} {y:.4f} {z:.4f}\n")
        return text.getvalue()


def view(
    mixed: MixedSystem,
    positions: Vectors,
    *,
    box_vectors: Vectors | None = None,
    within: Scalar = 0.4,
    charges: bool = True,
) -> py3Dmol.view:
    """Return a view of the regions with their link atoms and the charges around them, which a notebook shows.

    Atoms of the regions are sticks, link atoms are orange spheres, and the charges that the regions feel are small
    spheres: red for negative, blue for positive ones.

    Parameters
    ----------
    mixed : MixedSystem
    positions : (n_particles, 3) Quantity or float array, nm
    box_vectors : (3, 3) Quantity or float array, nm, optional
        Box of a periodic System; that of the System if not given.
    within : Quantity or float, nm
        Distance from the regions up to which charges are drawn.
    charges : bool
        Whether to draw charges.

    Raises
    ------
    MissingDependencyError
        If py3Dmol is not installed.
    SettingError
        If an argument has another type or shape.

    Notes
    -----
    The browser loads 3Dmol.js from the network: Rego and Koes, Bioinformatics 31, 1322 (2015).
    """
    found = scene(mixed, positions, box_vectors=box_vectors, within=within)
    check_flag("charges", charges)
    try:
        import py3Dmol
    except ImportError as error:
        raise MissingDependencyError(
            f'a view needs the package py3Dmol: pip install "qmmlmm[view]" ({error}); without it, '
            "qmmlmm.analysis.region_view.scene returns what the view would show"
        ) from error
    shown = py3Dmol.view(width=WIDTH, height=HEIGHT)
    shown.addModel(found.xyz(), "xyz")
    shown.setStyle({}, {"stick": {"radius": 0.14}, "sphere": {"scale": 0.22}})
    for place in found.links:
        shown.addSphere({"center": _point(place), "radius": LINK_RADIUS, "color": LINK_COLOUR, "alpha": 0.8})
    if charges:
        for place, charge in zip(found.charge_positions, found.charges, strict=True):
            if abs(charge) >= SMALLEST_CHARGE:
                colour = "red" if charge < 0.0 else "blue"
                size = CHARGE_RADIUS * float(np.cbrt(abs(charge)))
                shown.addSphere({"center": _point(place), "radius": size, "color": colour, "alpha": 0.6})
    shown.zoomTo()
    return shown


def scene(
    mixed: MixedSystem, positions: Vectors, *, box_vectors: Vectors | None = None, within: Scalar = 0.4
) -> RegionScene:
    """Return what `view` shows, as arrays.

    Parameters
    ----------
    mixed : MixedSystem
    positions : (n_particles, 3) Quantity or float array, nm
    box_vectors : (3, 3) Quantity or float array, nm, optional
        Box of a periodic System; that of the System if not given.
    within : Quantity or float, nm
        Distance from the regions up to which charges are returned.

    Raises
    ------
    SettingError
        If an argument has another type or shape.
    """
    check_instance("mixed", mixed, MixedSystem, "a MixedSystem, as create_mixed_system returns it")
    count = mixed.system.getNumParticles()
    places = check_array("positions", positions, (count, 3), unit.nanometer)
    distance = check_quantity("within", within, unit.nanometer, above=0.0)
    box = None
    if mixed.system.usesPeriodicBoundaryConditions():
        default = mixed.system.getDefaultPeriodicBoxVectors()
        box = check_array("box_vectors", default if box_vectors is None else box_vectors, (3, 3), unit.nanometer)
    region = np.unique(np.concatenate([found.atoms for found in mixed.regions]))
    anchor = mixed.regions[0].atoms[mixed.regions[0].anchor]
    near = nearest_displacements(places - places[anchor], box)
    charges, charge_places = _felt_charges(mixed, near)
    apart, _ = cKDTree(near[region]).query(charge_places, distance_upper_bound=distance)
    shown = np.isfinite(apart)
    row = {int(atom): k for k, atom in enumerate(region)}
    links, link_bonds = [], []
    for found in mixed.regions:
        for bond in found.link_bonds:
            along = near[bond.m1] - near[bond.q1]
            share = bond.ratio + bond.distance * BOHR_IN_NM / float(np.linalg.norm(along))
            links.append(near[bond.q1] + share * along)
            link_bonds.append((row[bond.q1], len(links) - 1))
    atoms = list(mixed.topology.atoms())
    return RegionScene(
        region=region,
        symbols=tuple(atoms[k].element.symbol for k in region),
        positions=near[region] / ANGSTROM_IN_NM,
        bonds=tuple((row[a], row[b]) for found in mixed.regions for a, b in found.bonds),
        links=np.array(links).reshape(-1, 3) / ANGSTROM_IN_NM,
        link_bonds=tuple(link_bonds),
        charges=charges[shown],
        charge_positions=charge_places[shown] / ANGSTROM_IN_NM,
    )


def _felt_charges(mixed: MixedSystem, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the charges that the first term in a field feels, e, and their places; none without such a term.

    Parameters
    ----------
    mixed : MixedSystem
    positions : (n_particles, 3) float array, nm
        Whole around the region.
    """
    for term in mixed.terms.values():
        found = term.layout.surroundings
        if found is not None:
            origin, towards = positions[found.derived_bonds[:, 0]], positions[found.derived_bonds[:, 1]]
            derived = origin + found.derived_fractions[:, None] * (towards - origin)
            places = np.concatenate([positions, derived])
            inside = np.isin(np.arange(len(places)), [p for region in mixed.regions for p in region.particles])
            kept = ~inside & (found.source_charges != 0.0)
            return np.asarray(found.source_charges[kept], dtype=float), places[kept]
    return np.zeros(0), np.zeros((0, 3))


def _point(place: FloatArray) -> dict[str, float]:
    return dict(zip("xyz", map(float, place), strict=True))
