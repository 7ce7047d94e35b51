"""The atoms that move on a surface, and those that are held."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qmmlmm.errors import SelectionError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.mm.held_atoms import wholly_selected
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.selection import select
from qmmlmm.mm.surroundings_system import embedded_atoms
from qmmlmm.mm.virtual_sites import complete_with_virtual_sites
from qmmlmm.setting_checks import check_atoms, check_text
from qmmlmm.units import IntArray


def moving_atoms(mixed: MixedSystem, atoms: Iterable[int] | str | None) -> IntArray:
    """Return the sorted atoms that move on a surface.

    Parameters
    ----------
    mixed : MixedSystem
    atoms : iterable of int or str, optional
        Atoms or a selection; the atoms of all regions if not given.

    Raises
    ------
    SelectionError
        If atoms do not exist or cannot move, or are fewer than two.
    """
    chosen = embedded_atoms(mixed) if atoms is None else _chosen(mixed, "atoms", atoms)
    system = mixed.system
    virtual = [k for k in chosen if system.isVirtualSite(k)]
    if virtual:
        raise SelectionError(f"virtual sites follow their parents and cannot be chosen: {listed(virtual)}")
    complete_with_virtual_sites(system, chosen)  # raises if a site has parents inside and outside
    inside = set(chosen)
    for index in range(system.getNumConstraints()):
        first, second, _ = system.getConstraintParameters(index)
        if first in inside or second in inside:
            raise SelectionError(
                f"a constraint joins the atoms {first} and {second}, of which one moves on the surface in internal "
                "coordinates; make the System without constraints there (rigidWater=False, constraints=None)"
            )
    if len(chosen) < 2:
        raise SelectionError(f"two or more atoms move on a surface, got {len(chosen)}; add neighbours of the region")
    return np.array(sorted(chosen), dtype=np.int64)


def _chosen(mixed: MixedSystem, name: str, atoms: Iterable[int] | str, *, empty: bool = False) -> tuple[int, ...]:
    if isinstance(atoms, str):
        try:
            return tuple(select(mixed.topology, check_text(name, atoms)))
        except SelectionError as error:
            raise SelectionError(f"{name}: {error}") from error
    return check_atoms(name, atoms, mixed.system.getNumParticles(), empty=empty)


def held_atoms(mixed: MixedSystem, hold: Iterable[int] | str, geometry: Geometry) -> tuple[int, ...]:
    """Return the atoms to hold; of a selection only those of residues that it has wholly.

    Parameters
    ----------
    mixed : MixedSystem
    hold : iterable of int or str
        Atoms or a selection.
    geometry : Geometry, nm
        All particles, for the selection.

    Raises
    ------
    SelectionError
        If atoms do not exist, or a selection cannot be read.
    """
    if not isinstance(hold, str):
        return _chosen(mixed, "hold", hold, empty=True)
    topology = mixed.topology
    try:
        selected = select(topology, check_text("hold", hold), positions=geometry.positions, box_vectors=geometry.box)
        return tuple(sorted(wholly_selected(topology, hold, selected)))
    except SelectionError as error:
        raise SelectionError(f"hold: {error}") from error
