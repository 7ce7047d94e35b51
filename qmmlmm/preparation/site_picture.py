"""A picture of an active site: sticks in a projection, near ones in front, with cut bonds and names of residues."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from openmm import app, unit

from qmmlmm.errors import signed
from qmmlmm.preparation.protonation import residue_label
from qmmlmm.preparation.residue_names import is_amino_acid
from qmmlmm.preparation.site import Site
from qmmlmm.setting_checks import check_array
from qmmlmm.units import FloatArray, Vectors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_LIGAND, _PROTEIN, _CUT, _OTHER = "#00897b", "#616161", "#d81b60", "#8e24aa"
_COLOURS = {"O": "#e53935", "N": "#1e66d0", "S": "#e0a800", "P": "#fb8c00", "H": "#c4c4c4"}
_FADE = 0.6
"""How far the farthest stick goes to white."""
_CHARACTER = (0.0105, 0.024)
"""Width and height of a character of a name, as fractions of the larger side of the picture."""


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

    Notes
    -----
    Ligands, cofactors and ions have carbon atoms of their own colour. Hydrogens on carbon are not drawn.
    """
    points = _whole(topology, check_array("positions", positions, (topology.getNumAtoms(), 3), unit.nanometer), site)
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(8.0, 7.0), layout="constrained").add_subplot()
    atoms = list(topology.atoms())
    bonds = [(first.index, second.index) for first, second in topology.bonds()]
    drawn = _drawn(atoms, bonds, site)
    depth = _depth(points, drawn)
    for pair in bonds:
        if drawn.issuperset(pair):
            _stick(ax, points, depth, pair, [_colour(atoms[index]) for index in pair])
    for index, other in site.cuts:
        middle = 0.5 * (points[index] + points[other])
        line = np.array([points[index], middle])[:, :2]
        ax.plot(*line.T, color=_CUT, linestyle=(0, (1.2, 0.8)), linewidth=2.5, zorder=2.0 + depth[index])
        ax.plot(*middle[:2], "o", markersize=5.0, color="white", markeredgecolor=_CUT, zorder=2.1 + depth[index])
    bonded = {index for pair in bonds if drawn.issuperset(pair) for index in pair}
    for index in sorted(drawn - bonded):
        ax.plot(*points[index, :2], "o", markersize=13.0, color=_colour(atoms[index]), zorder=2.5 + depth[index])
    _name_residues(ax, topology, points, drawn, site)
    ax.set_aspect("equal")
    ax.margins(0.04)
    ax.autoscale_view()
    ax.set_xlabel("first principal axis (angstrom)")
    ax.set_ylabel("second principal axis (angstrom)")
    charge = signed(site.charge)
    ax.set_title(f"{len(site.atoms)} atoms, charge {charge}, {len(site.cuts)} cut bonds", fontsize=10)
    ax.legend(handles=_legend(atoms, drawn, site), loc="best", fontsize=8, framealpha=0.9)
    return ax


def save_site_picture(path: str, topology: app.Topology, positions: Vectors, site: Site) -> None:
    """Write the picture of a site as PNG, without a date."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 7.0), layout="constrained")
    plot_site(topology, positions, site, figure.add_subplot())
    figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Software": None})


def _drawn(atoms: Sequence[app.topology.Atom], bonds: Sequence[tuple[int, int]], site: Site) -> set[int]:
    """Return the atoms of a site without hydrogens on carbon."""
    inside = {index for index in site.atoms if atoms[index].element is not None}
    hidden = set()
    for first, second in bonds:
        symbols = {k: "" if atoms[k].element is None else atoms[k].element.symbol for k in (first, second)}
        if set(symbols.values()) == {"C", "H"}:
            hidden |= {k for k, symbol in symbols.items() if symbol == "H"}
    return inside - hidden


def _depth(points: FloatArray, drawn: set[int]) -> FloatArray:
    """Return how near the atoms are, from 0 for the farthest one that is drawn to 1."""
    heights = points[sorted(drawn), 2]
    return np.clip((points[:, 2] - heights.min()) / max(float(np.ptp(heights)), 1.0), 0.0, 1.0)


def _colour(atom: app.topology.Atom) -> str:
    symbol = atom.element.symbol
    if symbol == "C":
        return _PROTEIN if is_amino_acid(atom.residue.name) else _LIGAND
    return _COLOURS.get(symbol, _OTHER)


def _stick(ax: Axes, points: FloatArray, depth: FloatArray, pair: tuple[int, int], colours: Sequence[str]) -> None:
    """Draw a bond in two halves."""
    from matplotlib.colors import to_rgb

    middle = points[list(pair)].mean(axis=0)
    for index, colour in zip(pair, colours, strict=True):
        faded = 1.0 - (1.0 - _FADE * (1.0 - depth[index])) * (1.0 - np.array(to_rgb(colour)))
        line = np.array([points[index], middle])[:, :2]
        ax.plot(
            *line.T, color=faded, linewidth=2.0 + 2.5 * depth[index], solid_capstyle="round", zorder=2 + depth[index]
        )


def _name_residues(ax: Axes, topology: app.Topology, points: FloatArray, drawn: set[int], site: Site) -> None:
    """Write the name of each residue where it hides least."""
    from matplotlib.patheffects import withStroke

    parts: dict[app.topology.Residue, list[int]] = {}
    for atom in topology.atoms():
        if atom.index in drawn:
            parts.setdefault(atom.residue, []).append(atom.index)
    flat = points[:, :2]
    sticks = [(a.index, b.index, 1.0) for a, b in topology.bonds() if drawn.issuperset((a.index, b.index))]
    sticks += [(inside, outside, 0.5) for inside, outside in site.cuts]
    along = np.linspace(0.0, 1.0, 7)[:, None]
    lines = [(a, flat[a] + length * along * (flat[b] - flat[a])) for a, b, length in sticks]
    size = float(np.ptp(flat[sorted(drawn)], axis=0).max()) or 1.0
    placed: list[tuple[FloatArray, FloatArray]] = []
    for residue, members in parts.items():
        text = f"{residue.name} {residue_label(residue)}"
        half = 0.5 * size * np.array([_CHARACTER[0] * len(text), _CHARACTER[1]])
        own = np.concatenate([flat[members], *(line for index, line in lines if index in members)])
        other = np.concatenate([flat[:0], *(line for index, line in lines if index not in members)])
        # A dozen atoms have enough places around them.
        places = _places(flat[members[:: max(1, len(members) // 12)]], half, size)
        place = min(places, key=lambda one: _hidden(one, half, own, other, placed))
        placed.append((place, half))
        ax.update_datalim([place - half, place + half])
        ligand = not is_amino_acid(residue.name)
        ax.text(
            float(place[0]),
            float(place[1]),
            text,
            fontsize=8,
            ha="center",
            va="center",
            color=_LIGAND if ligand else "black",
            weight="bold" if ligand else "normal",
            zorder=5,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _places(atoms: FloatArray, half: FloatArray, size: float) -> list[FloatArray]:
    """Return places for a name around atoms of a residue."""
    angles = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [
        atom + direction * (half + distance * size)
        for atom, distance, direction in itertools.product(atoms, (0.012, 0.03, 0.05), directions)
    ]


def _hidden(
    place: FloatArray,
    half: FloatArray,
    own: FloatArray,
    other: FloatArray,
    placed: Sequence[tuple[FloatArray, FloatArray]],
) -> float:
    """Return what a name at a place would hide, and how much nearer other residues are than its own."""
    covered = sum(int((np.abs(lines - place) < 1.2 * half).all(axis=1).sum()) for lines in (own, other))
    names = sum(bool((np.abs(middle - place) < size + half).all()) for middle, size in placed)
    mine, theirs = (float(np.linalg.norm(lines - place, axis=1).min(initial=np.inf)) for lines in (own, other))
    return covered + 12.0 * names + 2.0 * max(mine - theirs, -2.0) + mine


def _legend(atoms: Sequence[app.topology.Atom], drawn: set[int], site: Site) -> list[Line2D]:
    from matplotlib.lines import Line2D

    entries: dict[str, str] = {}
    for index in sorted(drawn):
        symbol = atoms[index].element.symbol
        own = symbol == "C" and not is_amino_acid(atoms[index].residue.name)
        entries[f"{symbol} of ligands" if own else symbol] = _colour(atoms[index])
    lines = [Line2D([], [], color=colour, linewidth=3.5, label=name) for name, colour in sorted(entries.items())]
    if site.cuts:
        lines.append(Line2D([], [], color=_CUT, linestyle=(0, (1.2, 0.8)), linewidth=2.5, label="cut bond"))
    return lines


def _whole(topology: app.Topology, positions: FloatArray, site: Site) -> FloatArray:
    """Return positions along the principal axes of the site, angstrom, by nearest images."""
    centre = positions[site.atoms[0]]
    apart = positions - centre
    vectors = topology.getPeriodicBoxVectors()
    if vectors is not None:
        box = np.array(vectors.value_in_unit(unit.nanometer), dtype=float)
        for axis in (2, 1, 0):
            apart -= np.round(apart[:, axis] / box[axis, axis])[:, None] * box[axis]
    inside = apart[list(site.atoms)]
    middle = inside.mean(axis=0)
    axes = np.linalg.eigh((inside - middle).T @ (inside - middle))[1][:, ::-1]
    # Signs of eigenvectors are arbitrary; the third completes a right-handed frame, so that nothing is mirrored.
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), [0, 1, 2]] < 0.0, -1.0, 1.0)
    axes[:, 2] = np.cross(axes[:, 0], axes[:, 1])
    return np.asarray(10.0 * (apart - middle) @ axes)
