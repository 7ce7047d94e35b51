"""How far the members of a committee disagree about the forces on a region, in its surroundings."""

# Annotations stay objects here (no `from __future__ import annotations`): TorchScript cannot read strings.

from typing import Dict  # noqa: UP035  (TorchScript reads this)

import numpy as np
import torch
from torch import Tensor

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.embedding.geometry import RegionGeometry
from qmmlmm.embedding.surroundings_field import SurroundingsField
from qmmlmm.errors import PotentialError
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.units import FORCE_AU_IN_OPENMM, NM_IN_BOHR, FloatArray

SCALE_BUFFER = "uncertainty_scale"
"""Name of a number in the model, by which the spread of its members is multiplied to be their error."""

SEPARATE_BUFFER = "separate_parts"
"""Name of a flag in the model: its members' forces in a vacuum and those of the interaction deviate independently.

Such a model also takes inputs without the potential.
"""


class CommitteeSpread:
    """The spread of a committee's forces on the atoms of one term.

    Parameters
    ----------
    layout : TermLayout
    potential : MLPotential
        Its module returns ``member_energies``, one for each of two members or more, beside ``energy``.

    Raises
    ------
    PotentialError
        If the model is no committee.
    """

    def __init__(self, layout: TermLayout, potential: MLPotential) -> None:
        specification = layout.specification
        self.name = specification.name
        self._atoms = torch.tensor(layout.atoms)
        self._model = potential.module
        self._field = None if layout.surroundings is None else SurroundingsField(layout, torch.float64)
        self._geometry = RegionGeometry(layout) if self._field is None else self._field.geometry
        self._constants = {
            "atomic_numbers": torch.tensor(specification.atomic_numbers),
            "charge": torch.tensor(float(specification.charge), dtype=torch.float64),
            "multiplicity": torch.tensor(float(specification.multiplicity), dtype=torch.float64),
            "state": torch.tensor(float(potential.state), dtype=torch.float64),
            "each_member": torch.ones((), dtype=torch.float64),
        }
        scales = [value for key, value in self._model.named_buffers() if key.split(".")[-1] == SCALE_BUFFER]
        self.scale = float(scales[0]) if scales else 1.0
        flags = [bool(value) for key, value in self._model.named_buffers() if key.split(".")[-1] == SEPARATE_BUFFER]
        self._separate = any(flags) and self._field is not None

    def member_forces(self, positions: FloatArray, box: FloatArray, in_vacuum: bool = False) -> FloatArray:
        """Return the forces of each member on the atoms of the region, (members, n_atoms, 3) hartree/bohr.

        Without what does not depend on the member: the reference charges in their own images.

        Parameters
        ----------
        positions : (n_particles, 3) float array, nm
        box : (3, 3) float array, nm
        in_vacuum : bool
            Those that the same geometry has without its surroundings and images.
        """
        with torch.no_grad():
            places = torch.from_numpy(positions * NM_IN_BOHR)
            vectors = torch.from_numpy(box * NM_IN_BOHR)
            field = None if in_vacuum else self._field
            leaves: Dict[str, Tensor] = {}  # noqa: UP006
            inputs = dict(self._constants)
            if field is None:
                leaves["positions"] = self._geometry.sites(places, vectors).clone()
            else:
                leaves["positions"] = field.prepare(places, vectors).clone()
                value, slope, curvature = field.potential()
                leaves["potential"], leaves["field"] = value.clone(), -slope
                inputs["near_positions"] = field.near_positions.clone()
                inputs["near_charges"] = field.near_charges()
        for leaf in leaves.values():
            leaf.requires_grad_(True)
        with torch.enable_grad():
            found = self._model({**inputs, **leaves})
        if "member_energies" not in found or len(found["member_energies"]) < 2:
            raise PotentialError(
                f"term {self.name!r}: the model is no committee, its members cannot disagree; train one with members=4"
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
                    on_sites = on_sites + by["potential"][:, None] * slope
                    on_sites = on_sites - torch.matmul(curvature, by["field"][:, :, None])[:, :, 0]
                    # In a box the member's charges act on the images of the region's atoms.
                    on_sources = field.adjoint(by["potential"], -by["field"])
                total = self._geometry.collect(on_sites, on_sources, places, vectors)
                forces.append(-total.index_select(0, self._atoms))
        return np.asarray(torch.stack(forces).numpy(), dtype=float)

    def environment(self, positions: FloatArray, box: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """Return what the model sees: atoms and link atoms, bohr, and the potential of the surroundings, hartree/e.

        Parameters
        ----------
        positions : (n_particles, 3) float array, nm
        box : (3, 3) float array, nm

        Returns
        -------
        (n, 3) float array, bohr
        (n,) float array, hartree/e, or None
            None with mechanical embedding.
        """
        with torch.no_grad():
            places = torch.from_numpy(positions * NM_IN_BOHR)
            vectors = torch.from_numpy(box * NM_IN_BOHR)
            if self._field is None:
                return np.array(self._geometry.sites(places, vectors).numpy()), None
            sites = self._field.prepare(places, vectors)
            value, _, _ = self._field.potential()
        return np.array(sites.numpy()), np.array(value.numpy())

    def atom_uncertainty(self, positions: FloatArray, box: FloatArray) -> FloatArray:
        """Return the expected error of the force on each atom of the region, (n_atoms,) kJ/(mol nm).

        Root mean square over x, y and z, times the scale that the training found on frames it had not seen. As in
        `qmmlmm.learning.uncertainty.force_uncertainty`, the variances in a vacuum and of the interaction are added if
        the model says that they are independent.
        """
        forces = self.member_forces(positions, box)
        variance = forces.var(axis=0, ddof=1)
        if self._separate:
            alone = self.member_forces(positions, box, in_vacuum=True)
            variance = alone.var(axis=0, ddof=1) + (forces - alone).var(axis=0, ddof=1)
        spread = np.sqrt(variance.mean(axis=-1))
        return np.asarray(self.scale * FORCE_AU_IN_OPENMM * spread)
