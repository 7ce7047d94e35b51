"""Harmonic forces that hold atoms at given positions."""

from __future__ import annotations

import re
from collections.abc import Iterable

import openmm
from openmm import unit

from qmmlmm.errors import SettingError
from qmmlmm.setting_checks import check_array, check_atoms, check_flag, check_text
from qmmlmm.units import Vectors


def hold_positions(
    name: str, atoms: Iterable[int], positions: Vectors, periodic: bool = False
) -> openmm.CustomExternalForce:
    """Return 0.5 k d^2 of each atom, d the distance from its place, with the global parameter ``<name>_k``.

    Parameters
    ----------
    name : str
        Part of the parameter's name; letters, digits and underscores.
    atoms : iterable of int
    positions : (n, 3) Quantity or float array, nm
        Positions of all particles of the System, among which are the places of the atoms.
    periodic : bool
        Whether the nearest image of the place counts.

    Returns
    -------
    openmm.CustomExternalForce
        Its parameter is zero, in kJ/(mol nm^2), until `Context.setParameter` changes it.

    Raises
    ------
    SettingError
        If the name cannot stand in an expression, or an argument has another type or shape.
    SelectionError
        If the atoms are no different indices of particles.

    Notes
    -----
    The places do not move when a barostat changes the box: hold few atoms, or none, at constant pressure.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", check_text("name", name), re.ASCII):
        raise SettingError(f"name has letters, digits and underscores and begins with no digit, got {name!r}")
    places = check_array("positions", positions, (None, 3), unit.nanometer)
    chosen = check_atoms("atoms", atoms, len(places))
    check_flag("periodic", periodic, SettingError)
    square = "+".join(f"({axis}-{name}_{axis})^2" for axis in "xyz")
    if periodic:
        square = f"periodicdistance(x,y,z,{name}_x,{name}_y,{name}_z)^2"
    force = openmm.CustomExternalForce(f"0.5*{name}_k*({square})")
    force.addGlobalParameter(f"{name}_k", 0.0)
    for axis in "xyz":
        force.addPerParticleParameter(f"{name}_{axis}")
    for atom in chosen:
        force.addParticle(atom, places[atom].tolist())
    force.setName(f"hold {name}")
    return force
