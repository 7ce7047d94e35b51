"""A picture of a region: its atoms and bonds in a projection, and where bonds are cut."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
from openmm import app

from qmmlmm.geometry import Geometry
from qmmlmm.runs.report.colours import ELEMENT_COLOURS, OTHER_ELEMENT
from qmmlmm.units import FloatArray

WIDTH, HEIGHT, MARGIN = 460.0, 320.0, 34.0
LARGEST_SCALE = 620.0
"""Units of the drawing per nm; a diatomic molecule does not fill the picture."""
MOST_WITH_HYDROGEN = 120
"""Atoms of a region whose hydrogen atoms are drawn."""


def region_picture(topology: app.Topology, geometry: Geometry, region: Sequence[int]) -> str:
    """Return a picture of a region in the plane in which it is largest, SVG; empty if it has no atoms.

    Parameters
    ----------
    topology : openmm.app.Topology
        Its bonds are drawn, those that leave the region dotted: a link atom is on each.
    geometry : Geometry, nm
        All particles.
    region : sequence of int
        Atoms of the region.
    """
    atoms = list(topology.atoms())
    inside = {index for index in region if atoms[index].element is not None}
    if len(inside) > MOST_WITH_HYDROGEN:
        inside = {index for index in inside if atoms[index].element.symbol != "H"}
    bonds = [
        (first.index, second.index)
        for first, second in topology.bonds()
        if first.index in inside or second.index in inside
    ]
    members = set(region)
    cuts = [(a, b) if a in members else (b, a) for a, b in bonds if not {a, b} <= members]
    inner = [(a, b) for a, b in bonds if {a, b} <= inside]
    drawn = sorted(inside | {outer for _, outer in cuts})
    if not drawn or not inside:
        return ""
    points = _projected(geometry, drawn, min(inside))
    place = {index: points[row] for row, index in enumerate(drawn)}
    parts = [f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="region of {len(region)} atoms">']
    parts += [_line(place[a], place[b], 'stroke="#8a8f98" stroke-width="3.5" stroke-linecap="round"') for a, b in inner]
    for a, b in cuts:
        parts.append(_line(place[a], place[b], 'stroke="#d55e00" stroke-width="2.5" stroke-dasharray="3 4"'))
    for index in sorted(inside, key=lambda index: place[index][2]):
        parts.append(_atom(place[index], atoms[index].element.symbol))
    for _, outer in cuts:
        atom = atoms[outer]
        x, y, _ = place[outer]
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="none" stroke="#d55e00" stroke-width="1.8"/>'
            f'<text class="tick" x="{x:.1f}" y="{y - 9:.1f}" text-anchor="middle">'
            f"{html.escape(f'{atom.residue.name} {atom.residue.id} {atom.name}')}</text>"
        )
    return "".join([*parts, "</svg>"])


def _projected(geometry: Geometry, drawn: Sequence[int], first: int) -> FloatArray:
    """Return places in the picture and the height above its plane, (n, 3), of atoms at images nearest to the first."""
    apart = geometry.positions[drawn] - geometry.positions[first]
    if geometry.box is not None:
        for axis in (2, 1, 0):
            apart -= np.round(apart[:, axis] / geometry.box[axis, axis])[:, None] * geometry.box[axis]
    apart -= apart.mean(axis=0)
    axes = np.linalg.eigh(apart.T @ apart)[1][:, ::-1]
    # Signs of eigenvectors are arbitrary.
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), [0, 1, 2]] < 0.0, -1.0, 1.0)
    turned: FloatArray = apart @ axes
    low, high = turned.min(axis=0), turned.max(axis=0)
    room = np.array([WIDTH, HEIGHT]) - 2.0 * MARGIN
    scale = min(LARGEST_SCALE, *(room / np.maximum(high - low, 1e-6)[:2]))
    turned = (turned - 0.5 * (low + high)) * scale
    turned[:, :2] = np.array([0.5 * WIDTH, 0.5 * HEIGHT]) + turned[:, :2] * np.array([1.0, -1.0])
    return turned


def _line(first: FloatArray, second: FloatArray, style: str) -> str:
    return f'<line x1="{first[0]:.1f}" y1="{first[1]:.1f}" x2="{second[0]:.1f}" y2="{second[1]:.1f}" {style}/>'


def _atom(place: FloatArray, symbol: str) -> str:
    x, y, _ = place
    colour = ELEMENT_COLOURS.get(symbol, OTHER_ELEMENT)
    if symbol == "H":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}" stroke="#8a8f98"/>'
    circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9" fill="{colour}"/>'
    if symbol == "C":
        return circle
    style = "fill:#fff;font-size:11px;font-weight:600"
    return f'{circle}<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" style="{style}">{symbol}</text>'
