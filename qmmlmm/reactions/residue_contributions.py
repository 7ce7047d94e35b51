"""Interactions of a region with residues at two structures of a reaction."""

from __future__ import annotations

import numpy as np
import openmm

from qmmlmm.analysis.barrier_residues import BarrierTable
from qmmlmm.analysis.interaction import residue_interactions
from qmmlmm.errors import SettingError
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.reactions.structure import Start, start_geometry
from qmmlmm.setting_checks import check_instance, check_names
from qmmlmm.units import Vectors


def barrier_residues(
    mixed: MixedSystem,
    reactant: Start,
    saddle: Start,
    term: str | None = None,
    *,
    box_vectors: Vectors | None = None,
    lennard_jones: bool = True,
    group_solvent: bool = True,
    names: tuple[str, str] = ("reactant", "saddle point"),
) -> BarrierTable:
    """Return which residues raise and lower a barrier, or the energy of one structure above that of another.

    Parameters
    ----------
    mixed : MixedSystem
    reactant, saddle : Structure, (n_particles, 3) Quantity or float array, nm
        Such as the results of `optimise` and `saddle_point`.
    term, lennard_jones, group_solvent
        As in `residue_interactions`.
    box_vectors : (3, 3) Quantity or float array, nm, optional
        Box of both; the default of the System if not given.
    names : tuple of (str, str)
        What the two structures are, if not these, such as ``("first point", "last point")``.

    Raises
    ------
    SettingError
        If positions have another shape or are equal, or the names are not two different texts.
    HamiltonianError, PotentialError
        As `residue_interactions`.
    """
    check_instance("mixed", mixed, MixedSystem)
    geometries = [start_geometry(mixed, each, box_vectors) for each in (reactant, saddle)]
    if np.array_equal(geometries[0].positions, geometries[1].positions):
        raise SettingError("reactant and saddle are the same positions, between which there is no barrier")
    check_names("names", names)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(mixed.system, integrator, openmm.Platform.getPlatform("Reference"))
    tables = []
    for geometry in geometries:
        if geometry.box is not None:
            context.setPeriodicBoxVectors(*geometry.box)
        context.setPositions(geometry.positions)
        tables.append(
            residue_interactions(mixed, context, term, lennard_jones=lennard_jones, group_solvent=group_solvent)
        )
    before, after = tables
    return BarrierTable(before, after, names)
