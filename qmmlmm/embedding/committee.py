"""Disagreement of the members of a committee about the forces on an embedded region."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.embedding.chain_rule import site_gradient
from qmmlmm.embedding.model_inputs import ModelInputs
from qmmlmm.embedding.region_geometry import RegionGeometry, tensors_of
from qmmlmm.embedding.surroundings_field import SurroundingsField
from qmmlmm.errors import PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.units import FORCE_AU_IN_OPENMM, FloatArray

SCALE_BUFFER = "uncertainty_scale"
"""Name of the model's factor from the spread of its members to their error."""

SEPARATE_BUFFER = "separate_parts"
"""Name of a flag in the model: the deviations of its members' forces in a vacuum and in the interaction are
independent.

Such a model also takes inputs without the potential.
"""


def force_variance(forces: Tensor, vacuum_forces: Tensor | None) -> Tensor:
    """Return the variance of the members' forces, (...).

    Parameters
    ----------
    forces : (members, ...) tensor
        Forces of at least two members.
    vacuum_forces : (members, ...) tensor or None
        Forces of the same geometries without surroundings, if the deviations in a vacuum and in the interaction are
        independent.

    Notes
    -----
    A force is the sum of that in a vacuum and that of the interaction. If both have labels, the members' deviations in
    the two are hardly correlated: their covariance is 0 to 8 % of the total variance in acetone, and its estimate from
    four members is mostly noise. The sum of the two variances without it distinguishes frames better.
    """
    if vacuum_forces is None:
        return forces.var(0)
    return vacuum_forces.var(0) + (forces - vacuum_forces).var(0)


class CommitteeSpread:
    """The spread of a committee's forces on the atoms of one term.

    Parameters
    ----------
    layout : TermLayout
    model : torch.jit.ScriptModule
        Model that returns ``member_energies``, of at least two members, and ``energy``.
    state : int
        Electronic state.
    """

    def __init__(self, layout: TermLayout, model: torch.jit.ScriptModule, state: int = 0) -> None:
        self.name = layout.specification.name
        self._atoms = torch.tensor(layout.atoms)
        self._model = model
        self._field = None if layout.surroundings is None else SurroundingsField(layout, torch.float64)
        self._geometry = RegionGeometry(layout) if self._field is None else self._field.geometry
        self._inputs = ModelInputs(layout.specification, state)
        buffers = {key.split(".")[-1]: value for key, value in model.named_buffers()}
        self.scale = float(buffers.get(SCALE_BUFFER, 1.0))
        self._separate = bool(buffers.get(SEPARATE_BUFFER, False)) and self._field is not None

    def member_forces(self, geometry: Geometry, in_vacuum: bool = False) -> Tensor:
        """Return the forces of each member on the atoms of the region, (members, n_atoms, 3) hartree/bohr.

        The energy of the reference charges in their own images is left out: it is the same for all members.

        Parameters
        ----------
        geometry : Geometry, nm
            All particles.
        in_vacuum : bool
            Whether to leave out the surroundings and images.

        Raises
        ------
        PotentialError
            If the model is no committee.
        """
        field = None if in_vacuum else self._field
        with torch.no_grad():
            positions, box = tensors_of(geometry.in_bohr())
            if field is None:
                leaves = {"positions": self._geometry.sites(positions, box).clone()}
            else:
                prepared = field.prepare(positions, box)
                surroundings = field.potential(prepared)
                leaves = {
                    "positions": prepared.sites.clone(),
                    "potential": surroundings.value.clone(),
                    "field": -surroundings.gradient,
                }
        for leaf in leaves.values():
            leaf.requires_grad_(True)
        inputs = self._inputs(leaves["positions"]) | leaves | {"each_member": torch.ones((), dtype=torch.float64)}
        if field is not None:
            inputs |= {"near_positions": prepared.near_positions.clone(), "near_charges": prepared.near_charges}
        with torch.enable_grad():
            found = self._model(inputs)
        if "member_energies" not in found or len(found["member_energies"]) < 2:
            raise PotentialError(
                f"term {self.name!r}: the model is no committee and has no spread; train one with members=4"
            )
        forces = []
        for energy in found["member_energies"]:
            gradients = torch.autograd.grad(energy, list(leaves.values()), retain_graph=True, allow_unused=True)
            by = {
                key: torch.zeros_like(leaf) if gradient is None else gradient
                for (key, leaf), gradient in zip(leaves.items(), gradients, strict=True)
            }
            with torch.no_grad():
                on_sites = by["positions"]
                on_sources = torch.zeros((0, 3), dtype=torch.float64)
                if field is not None:
                    charges, dipoles = by["potential"], -by["field"]
                    on_sites = site_gradient(on_sites, charges, dipoles, surroundings.gradient, surroundings.curvature)
                    # In a box the member's charges act on the images of the region's atoms.
                    on_sources = field.adjoint(prepared, surroundings, charges, dipoles)
                total = self._geometry.collect(on_sites, on_sources, positions, box)
                forces.append(-total.index_select(0, self._atoms))
        return torch.stack(forces)

    def environment(self, geometry: Geometry) -> tuple[FloatArray, FloatArray | None]:
        """Return the inputs of the model: atoms and link atoms, bohr, and the potential of the surroundings, hartree/e.

        Parameters
        ----------
        geometry : Geometry, nm
            All particles.

        Returns
        -------
        (n, 3) float array, bohr
        (n,) float array, hartree/e, or None
            None with mechanical embedding.
        """
        with torch.no_grad():
            positions, box = tensors_of(geometry.in_bohr())
            if self._field is None:
                return np.array(self._geometry.sites(positions, box).numpy()), None
            prepared = self._field.prepare(positions, box)
            value = self._field.potential(prepared).value
        return np.array(prepared.sites.numpy()), np.array(value.numpy())

    def atom_uncertainty(self, geometry: Geometry) -> FloatArray:
        """Return the expected error of the force on each atom of the region, (n_atoms,) kJ/(mol nm).

        Root mean square over x, y and z, times the scale that the training found on held-out frames. The variances in a
        vacuum and in the interaction are added if they are independent in the model.

        Parameters
        ----------
        geometry : Geometry, nm
            All particles.
        """
        forces = self.member_forces(geometry)
        alone = self.member_forces(geometry, in_vacuum=True) if self._separate else None
        spread = force_variance(forces, alone).mean(-1).sqrt()
        return np.asarray(self.scale * FORCE_AU_IN_OPENMM * spread.numpy())
