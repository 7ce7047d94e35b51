"""Places of caps at the ends of a chain: PDBFixer may put them on top of their neighbours."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from openmm import app

from qmmlmm.units import FloatArray

PEPTIDE, METHYL, ACETYL, CARBONYL = 0.1335, 0.1449, 0.1522, 0.1229
"""nm; lengths of C-N, N-CH3, CH3-C and C=O of a peptide group."""
AT_NITROGEN, AT_CARBON, AT_OXYGEN = 121.9, 116.6, 122.9
"""Degrees; angles C-N-C, C-C-N and O-C-N."""
FAR = 0.3
"""nm; heavy atoms at this distance do not touch."""


def place_caps(topology: app.Topology, positions: FloatArray, caps: Iterable[app.topology.Residue]) -> None:
    """Put ACE and NME at trans peptide bonds, where they touch least.

    Parameters
    ----------
    topology : openmm.app.Topology
        Heavy atoms only.
    positions : (n_atoms, 3) float array, nm
        Changed in place.
    caps : iterable of openmm.app.topology.Residue
        Caps at the ends of chains.
    """
    for cap in caps:
        residues = list(cap.chain.residues())
        place = residues.index(cap)
        atoms = {atom.name: atom.index for atom in cap.atoms()}
        neighbour = residues[place - 1 if cap.name == "NME" else place + 1]
        named = {atom.name: positions[atom.index] for atom in neighbour.atoms()}
        if cap.name == "NME":
            placed = _methylamide(named)
        else:
            bonded = [atom.index for atom in neighbour.atoms() if atom.name in ("N", "CA")]
            others = np.delete(positions, [*atoms.values(), *bonded], axis=0)
            placed = _acetyl(named, others)
        for name, position in placed.items():
            positions[atoms[name]] = position


def _methylamide(named: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Return N and C of NME behind a residue: in the plane of its carbonyl group."""
    carbon = named["C"]
    arms = [named[name] - carbon for name in ("CA", "O")]
    away = -sum(arm / np.linalg.norm(arm) for arm in arms)
    nitrogen = carbon + PEPTIDE * away / np.linalg.norm(away)
    return {"N": nitrogen, "C": _from(named["CA"], carbon, nitrogen, METHYL, AT_NITROGEN, 180.0)}


def _acetyl(named: dict[str, FloatArray], others: FloatArray) -> dict[str, FloatArray]:
    """Return C, O and CH3 of ACE before a residue, at the angle phi with which they touch least."""
    nitrogen, alpha = named["N"], named["CA"]
    if "CD" in named and "CG" in named and np.linalg.norm(named["CD"] - nitrogen) < 0.18:
        # Proline: the ring says where the third bond of N points.
        arms = [point - nitrogen for point in (alpha, named["CD"])]
        away = -sum(arm / np.linalg.norm(arm) for arm in arms)
        carbons = [nitrogen + PEPTIDE * away / np.linalg.norm(away)]
    else:
        # The usual angle comes first, and wins if nothing touches.
        angles = sorted(range(-180, 180, 15), key=lambda angle: abs(angle + 90))
        carbons = [_from(named["C"], alpha, nitrogen, PEPTIDE, AT_NITROGEN, float(angle)) for angle in angles]
    found = []
    for carbon in carbons:
        methyl = _from(alpha, nitrogen, carbon, ACETYL, AT_CARBON, 180.0)
        oxygen = _from(alpha, nitrogen, carbon, CARBONYL, AT_OXYGEN, 0.0)
        found.append({"C": carbon, "O": oxygen, "CH3": methyl})
    return max(found, key=lambda placed: _room(np.array(list(placed.values())), others))


def _room(points: FloatArray, others: FloatArray) -> float:
    """Return the shortest distance between two sets of points, at most that at which they do not touch."""
    return min(FAR, float(np.linalg.norm(points[:, None] - others, axis=2).min(initial=np.inf)))


def _from(a: FloatArray, b: FloatArray, c: FloatArray, distance: float, angle: float, torsion: float) -> FloatArray:
    """Return d with the distance c-d, the angle b-c-d and the torsion a-b-c-d, degrees."""
    theta, phi = np.radians(angle), np.radians(torsion)
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal = normal / np.linalg.norm(normal)
    local = [-np.cos(theta), np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi)]
    return np.asarray(c + distance * (local[0] * along + local[1] * np.cross(normal, along) + local[2] * normal))
