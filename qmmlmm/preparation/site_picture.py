"""A picture of an active site: its atoms and bonds in a projection, cut bonds, and what was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from openmm import app, unit

from qmmlmm.preparation.protonation import residue_label
from qmmlmm.preparation.site import Site
from qmmlmm.setting_checks import check_array
from qmmlmm.units import FloatArray, Vectors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"C": "0.35", "O": "tab:red", "N": "tab:blue", "S": "goldenrod", "P": "tab:orange", "H": "0.8"}


def plot_site(topology: app.Topology, positions: Vectors, site: Site, ax: Axes | None = None) -> Axes:
    """Draw a site in the plane in which it is largest.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : (n_atoms, 3) Quantity or float array, nm
    site : Site
    ax : matplotlib.axes.Axes, optional
        A new figure if not given.

    Returns
    -------
    matplotlib.axes.Axes
    """
    points = _whole(topology, check_array("positions", positions, (topology.getNumAtoms(), 3), unit.nanometer), site)
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(8.0, 7.0), layout="constrained").add_subplot()
    inside = set(site.atoms)
    atoms = list(topology.atoms())
    for first, second in topology.bonds():
        pair = (first.index, second.index)
        if inside.issuperset(pair) and first.element is not None and second.element is not None:
            ax.plot(*points[list(pair)].T, color="0.6", linewidth=1.5, zorder=1)
    for number, (index, other) in enumerate(site.cuts):
        label = "cut bond" if number == 0 else None
        ax.plot(*points[[index, other]].T, color="tab:red", linestyle=":", linewidth=1.5, zorder=1, label=label)
    shown = [index for index in site.atoms if atoms[index].element is not None]
    symbols = [atoms[index].element.symbol for index in shown]
    colours = [_COLOURS.get(symbol, "tab:green") for symbol in symbols]
    sizes = [12 if symbol == "H" else 45 for symbol in symbols]
    ax.scatter(points[shown, 0], points[shown, 1], s=sizes, c=colours, zorder=2, linewidths=0)
    for residue in {atoms[index].residue: None for index in site.atoms}:
        members = [atom.index for atom in residue.atoms() if atom.index in inside]
        ax.annotate(
            f"{residue.name} {residue_label(residue)}",
            points[members].mean(axis=0),
            fontsize=8,
            ha="center",
            zorder=3,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.7, "linewidth": 0},
        )
    ax.set_aspect("equal")
    ax.set_xlabel("first principal axis (angstrom)")
    ax.set_ylabel("second principal axis (angstrom)")
    ax.set_title(f"{len(site.atoms)} atoms, charge {site.charge:+d}, {len(site.cuts)} cut bonds", fontsize=10)
    if site.cuts:
        ax.legend(loc="upper right", fontsize=8)
    return ax


def save_site_picture(path: str, topology: app.Topology, positions: Vectors, site: Site) -> None:
    """Write the picture of a site as PNG, without a date."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 7.0), layout="constrained")
    plot_site(topology, positions, site, figure.add_subplot())
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _whole(topology: app.Topology, positions: FloatArray, site: Site) -> FloatArray:
    """Return positions in the plane of the two principal axes of the site, angstrom, by nearest images."""
    centre = positions[site.atoms[0]]
    apart = positions - centre
    vectors = topology.getPeriodicBoxVectors()
    if vectors is not None:
        box = np.array(vectors.value_in_unit(unit.nanometer), dtype=float)
        for axis in (2, 1, 0):
            apart -= np.round(apart[:, axis] / box[axis, axis])[:, None] * box[axis]
    inside = apart[list(site.atoms)]
    middle = inside.mean(axis=0)
    axes = np.linalg.eigh((inside - middle).T @ (inside - middle))[1][:, :0:-1]
    # Signs of eigenvectors are arbitrary.
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0.0, -1.0, 1.0)
    return 10.0 * (apart - middle) @ axes
