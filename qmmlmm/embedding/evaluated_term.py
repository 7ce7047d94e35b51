"""A term whose potential runs in Python: from positions of all particles to energy and forces on all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.potential import EvaluatedPotential, Evaluation, ExternalField, PeriodicEvaluator, is_long_range
from qmmlmm.embedding.geometry import RegionGeometry
from qmmlmm.embedding.mesh import SPLINE_ORDER
from qmmlmm.embedding.near_mesh import NARROW_REACH, WORTHWHILE, NearMesh
from qmmlmm.embedding.surroundings_field import SurroundingsField, smeared_slope
from qmmlmm.errors import EvaluationError, NonFiniteError, listed
from qmmlmm.units import ANGSTROM_IN_BOHR, FloatArray

CLOSEST = 0.3 * ANGSTROM_IN_BOHR
"""Distance in bohr below which a charge lies inside an atom of the region."""

NEAR_REACH = 6.5 * ANGSTROM_IN_BOHR
"""Charges of the surroundings within this distance of an atom are near, unless a caller says otherwise."""

POINTS_AT_ONCE = 2000
"""Points of a density that are taken together; bounds the memory."""


@dataclass(frozen=True)
class NearSources:
    """The charges of the surroundings that are close to a region.

    Parameters
    ----------
    positions : (k, 3) float array, bohr
        Of the images that are near.
    charges : (k,) float array, e
    gradient : (k, 3) float array, hartree/bohr
        Derivative of the energy by the positions of these images alone, through 1/r: all other images are held.
    widths : (k,) float array or None, bohr
        Of Gaussian charges, which act through erf(r/w)/r in the place of 1/r; zero for points.

    Notes
    -----
    Only 1/r is harmonic. Through erfc(a r)/r the extent of the electrons is felt besides charges and multipoles, and a
    model of multipoles could not give the same.
    """

    positions: FloatArray
    charges: FloatArray
    gradient: FloatArray
    widths: FloatArray | None = None


@dataclass(frozen=True)
class Label:
    """What a learned potential of a region is trained on, at one geometry.

    Parameters
    ----------
    positions : (n, 3) float array, bohr
        Of the region's atoms and link atoms.
    potential : (n,) float array, hartree/e
        Of the surroundings, at these positions; zeros with mechanical embedding, as are the next two.
    potential_gradient : (n, 3) float array, hartree/(e bohr)
    potential_curvature : (n, 3, 3) float array, hartree/(e bohr^2)
    energy : float, hartree
        Of the region with its interaction with the surroundings.
    gradient : (n, 3) float array, hartree/bohr
        Derivative of the energy at a fixed potential phi(r).
    results : dict
        Of the evaluator.
    near : NearSources or None
        None with mechanical embedding.
    """

    positions: FloatArray
    potential: FloatArray
    potential_gradient: FloatArray
    potential_curvature: FloatArray
    energy: float
    gradient: FloatArray
    results: dict[str, object]
    near: NearSources | None = None


class EvaluatedTerm:
    """One term of the Hamiltonian, computed by an `Evaluator` in its surroundings.

    Parameters
    ----------
    layout : TermLayout
    potential : EvaluatedPotential

    Attributes
    ----------
    last : Evaluation or None
        What the evaluator returned last, with its `results`.
    """

    def __init__(self, layout: TermLayout, potential: EvaluatedPotential) -> None:
        self.layout = layout
        self.potential = potential
        self.last: Evaluation | None = None
        self._evaluator = potential.create_evaluator(layout.specification)
        self._geometry = RegionGeometry(layout)
        order = int(getattr(potential, "mesh_order", SPLINE_ORDER))
        self._field = SurroundingsField(layout, order=order) if layout.surroundings is not None else None
        self._near_mesh = self._finer_mesh()
        # Positions in the list of near sources: compact charges of the external field, charges on the finer mesh.
        self._compact = torch.zeros(0, dtype=torch.int64)
        self._on_mesh = torch.zeros(0, dtype=torch.int64)

    def __reduce__(self) -> tuple[object, ...]:
        return (EvaluatedTerm, (self.layout, self.potential))

    @property
    def name(self) -> str:
        """Name of the term."""
        return self.layout.specification.name

    def forget(self) -> None:
        """Let the evaluator forget earlier geometries, if it keeps any."""
        forget = getattr(self._evaluator, "forget", None)
        if forget is not None:
            forget()

    def summary(self) -> dict[str, object]:
        """Return what the evaluator counted since it was made, if it counts anything."""
        summary = getattr(self._evaluator, "summary", None)
        return {} if summary is None else dict(summary())

    def select_state(self, index: int) -> None:
        """Let another electronic state have energy and forces from now on."""
        self._evaluator.select_state(index)  # type: ignore[attr-defined]

    def memory(self) -> dict[str, FloatArray]:
        """Return what the evaluator needs of the last geometry."""
        memory = getattr(self._evaluator, "memory", None)
        return {} if memory is None else dict(memory())

    def recall(self, memory: dict[str, FloatArray]) -> None:
        """Let the evaluator go on from what `memory` returned."""
        self.forget()
        if memory:
            self._evaluator.recall(memory)  # type: ignore[attr-defined]

    def coupling(self, first: int, second: int, positions: FloatArray, box: FloatArray) -> FloatArray:
        """Return the derivative coupling <first | gradient of second> of all particles at the last geometry, 1/bohr.

        Parameters
        ----------
        first, second : int
            Electronic states.
        positions : (n_particles, 3) float array, bohr
        box : (3, 3) float array, bohr

        Raises
        ------
        EvaluationError
            If the evaluator has no couplings or they cannot be computed.
        """
        if self.last is None or self.last.coupling is None:
            raise EvaluationError(
                f"term {self.name!r} has no derivative couplings; PySCF has them for CASSCF. Local diabatisation and "
                "Landau-Zener do without them"
            )
        upper, lower = self.last.coupling(first, second)
        difference = self._collected(upper, positions, box)[1] - self._collected(lower, positions, box)[1]
        return difference / (upper.energy - lower.energy)

    def _collected(self, evaluation: Evaluation, positions: FloatArray, box: FloatArray) -> tuple[float, FloatArray]:
        """Return the energy, and the gradient on all particles."""
        if self._field is None:
            energy = evaluation.energy
            site_gradient = torch.from_numpy(np.ascontiguousarray(evaluation.gradient))
            source_gradient = torch.zeros((0, 3), dtype=torch.float64)
        else:
            energy, site_gradient, source_gradient = self._in_field(evaluation)
        where = torch.from_numpy(positions), torch.from_numpy(box)
        return energy, np.asarray(self._geometry.collect(site_gradient, source_gradient, *where).numpy())

    def external_field(self, positions: FloatArray, box: FloatArray) -> tuple[FloatArray, ExternalField]:
        """Return the region's sites and the field that they are in.

        Parameters
        ----------
        positions : (n_particles, 3) float array, bohr
        box : (3, 3) float array, bohr

        Returns
        -------
        sites : (n_sites, 3) float array, bohr
        field : ExternalField
        """
        field = self._field
        if field is None:
            raise TypeError(f"term {self.name!r} has mechanical embedding: there is no external field")
        sites = field.prepare(torch.from_numpy(positions), torch.from_numpy(box)).numpy()
        near = field.near_positions.numpy()
        charges = field.near_charges().numpy()
        widths = field.near_widths().numpy() if field.smeared else None
        self._check_distances(sites, near, charges)
        if not self.layout.periodic:
            return sites, ExternalField(near, charges, np.zeros_like(charges), widths=widths)
        own = field.own_charges.numpy()
        mesh = self._near_mesh
        if mesh is None:
            self._compact = torch.arange(len(near))
        else:
            distances = torch.cdist(torch.from_numpy(sites), field.near_positions).min(dim=0).values
            broadest = max(1.0 / mesh.narrow, 0.0 if widths is None else widths.max(initial=0.0))
            self._compact = torch.nonzero(distances < NARROW_REACH * broadest)[:, 0]
            self._on_mesh = torch.nonzero(distances < field.cutoff)[:, 0]
            mesh.fill(field.sites, *self._mesh_charges())
            compact = self._compact.numpy()
            near, charges = near[compact], charges[compact]
            widths = None if widths is None else widths[compact]

        def smooth_potential(points: FloatArray) -> tuple[FloatArray, FloatArray]:
            places = torch.from_numpy(np.ascontiguousarray(points))
            value, gradient = field.smooth_potential(places)
            if mesh is not None:
                more = mesh.potential(places)
                value, gradient = value + more[0], gradient + more[1]
            return value.numpy(), gradient.numpy()

        return sites, ExternalField(
            positions=np.concatenate([near, sites[: len(own)]]),
            point_charges=np.concatenate([charges, np.zeros_like(own)]),
            gaussian_charges=np.concatenate([-charges, -own]),
            splitting=field.splitting if mesh is None else mesh.narrow,
            smooth_potential=smooth_potential,
            widths=None if widths is None else np.concatenate([widths, np.zeros_like(own)]),
        )

    def _check_distances(self, sites: FloatArray, near: FloatArray, charges: FloatArray) -> None:
        """Raise if a charge of the surroundings lies inside an atom of the region."""
        assert self._field is not None
        charged = np.flatnonzero(charges)
        if not len(charged):
            return
        distances = torch.cdist(torch.from_numpy(sites), torch.from_numpy(near[charged])).numpy()
        pairs = np.argwhere(distances < CLOSEST)
        if not len(pairs):
            return
        layout, sources = self.layout, self._field.near_index.numpy()
        found = [
            f"{layout.source_name(int(sources[charged[k]]))} is {distances[i, k] / ANGSTROM_IN_BOHR:.2f} angstrom "
            f"from {layout.site_name(int(i))}"
            for i, k in pairs
        ]
        raise EvaluationError(
            f"term {self.name!r}: charges of the surroundings lie inside atoms of the region: {listed(found)}. "
            "Closer than 0.3 angstrom the interaction means nothing; minimise with the force field first, or, for a "
            "cut bond, choose another link ratio or boundary_charges"
        )

    def _finer_mesh(self) -> NearMesh | None:
        """Return a mesh for near charges if the potential asks for a larger splitting than the force field has."""
        wanted = getattr(self.potential, "short_range_splitting", None)
        field = self._field
        if wanted is None or field is None or not self.layout.periodic or wanted < WORTHWHILE * field.splitting:
            return None
        return NearMesh(field.splitting, float(wanted), field.cutoff)

    def _mesh_charges(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sources of the finer mesh: the near ones and the region's own."""
        field = self._field
        assert field is not None
        own = field.own_charges
        return (
            torch.cat([field.near_positions[self._on_mesh], field.sites[: len(own)]]),
            torch.cat([field.near_charges()[self._on_mesh], own]),
        )

    def label(self, positions: FloatArray, box: FloatArray, near_reach: float = NEAR_REACH) -> Label:
        """Return what a learned potential is trained on.

        Parameters
        ----------
        positions : (n_particles, 3) float array, bohr
        box : (3, 3) float array, bohr
        near_reach : float, bohr
            Charges within this distance of an atom are near.
        """
        near = None
        if self._field is None:
            sites = self._geometry.sites(torch.from_numpy(positions), torch.from_numpy(box)).numpy()
            n = len(sites)
            potential, slope, curvature = np.zeros(n), np.zeros((n, 3)), np.zeros((n, 3, 3))
            evaluation = self._evaluator.evaluate(sites, None)
        else:
            sites, field = self.external_field(positions, box)
            potential, slope, curvature = (tensor.numpy() for tensor in self._field.potential())
            evaluation = self._evaluator.evaluate(sites, field)
            near = self._near_sources(evaluation, near_reach)
        return Label(
            sites, potential, slope, curvature, evaluation.energy, evaluation.gradient, evaluation.results, near
        )

    def compute(self, positions: FloatArray, box: FloatArray) -> tuple[float, FloatArray]:
        """Return the term's energy and its gradient on all particles, without the coefficient.

        Parameters
        ----------
        positions : (n_particles, 3) float array, bohr
        box : (3, 3) float array, bohr
            Not used without periodicity.

        Returns
        -------
        energy : float, hartree
        gradient : (n_particles, 3) float array, hartree/bohr

        Raises
        ------
        NonFiniteError
            If the energy or a force is not a number.
        EvaluationError
            If the evaluator fails.
        """
        if self._field is None:
            sites = self._geometry.sites(torch.from_numpy(positions), torch.from_numpy(box)).numpy()
            evaluation = self._evaluate_alone(sites, box)
        else:
            sites, field = self.external_field(positions, box)
            evaluation = self._evaluator.evaluate(sites, field)
        self.last = evaluation
        energy, gradient = self._collected(evaluation, positions, box)
        self._check(energy, gradient)
        return energy, gradient

    def _evaluate_alone(self, sites: FloatArray, box: FloatArray) -> Evaluation:
        if self.layout.periodic and is_long_range(self.potential):
            return cast(PeriodicEvaluator, self._evaluator).evaluate_in_box(sites, box)
        return self._evaluator.evaluate(sites, None)

    def _in_field(self, evaluation: Evaluation) -> tuple[float, torch.Tensor, torch.Tensor]:
        field = self._field
        assert field is not None
        once, once_sites, once_sources = field.reference_energy()
        site_gradient = torch.from_numpy(np.ascontiguousarray(evaluation.gradient)) + once_sites
        source_gradient = once_sources
        near, own = self._near_gradient(evaluation)
        source_gradient.index_add_(0, field.near_index, near)
        site_gradient[: own.shape[0]] += own
        if self.layout.periodic:
            points = torch.from_numpy(np.ascontiguousarray(evaluation.smooth_points))
            charges = torch.from_numpy(np.ascontiguousarray(evaluation.smooth_charges))
            source_gradient = source_gradient + field.smooth_adjoint(points, charges, None)
        return evaluation.energy + float(once), site_gradient, source_gradient

    def source_energies(self, evaluation: Evaluation) -> FloatArray:
        """Return the energy of the region with each source of its field.

        Parameters
        ----------
        evaluation : Evaluation
            With `charge_energies`, made in the field that `external_field` returned last.

        Returns
        -------
        (n_sources,) float array, hartree
            An atom of the region has the energy with its own images.
        """
        field = self._field
        assert field is not None
        assert evaluation.charge_energies is not None
        compact = torch.from_numpy(np.ascontiguousarray(evaluation.charge_energies()))
        energies = torch.zeros_like(field.charges)
        if not self.layout.periodic:
            energies.index_add_(0, field.near_index, compact)
            return np.asarray(energies.numpy())
        own = field.geometry.atoms
        n_compact = self._compact.shape[0]
        energies.index_add_(0, field.near_index[self._compact], compact[:n_compact])
        # The smeared charges that come last take the nearest images of the region's atoms, itself, out of the mesh.
        energies.index_add_(0, own, compact[n_compact:])
        points = torch.from_numpy(np.ascontiguousarray(evaluation.smooth_points))
        charges = torch.from_numpy(np.ascontiguousarray(evaluation.smooth_charges))
        energies = energies + field.smooth_source_energies(points, charges, None)
        if self._near_mesh is not None:
            places, mesh_charges = self._mesh_charges()
            pairs = mesh_charges * self._near_mesh.potential_at(places, points, charges)[0]
            energies.index_add_(0, torch.cat([field.near_index[self._on_mesh], own]), pairs)
        return np.asarray(energies.numpy())

    def _near_sources(self, evaluation: Evaluation, reach: float) -> NearSources:
        field = self._field
        assert field is not None
        places, charges = field.near_positions, field.near_charges()
        near = torch.nonzero(torch.cdist(field.sites, places).min(dim=0).values < reach)[:, 0]
        gradient, _ = self._near_gradient(evaluation)
        gradient, places, charges = gradient[near], places[near], charges[near]
        if self.layout.periodic:
            # The integrals hold erfc(a r)/r; what is missing to 1/r is smooth, and the density is known on points.
            points = torch.from_numpy(np.ascontiguousarray(evaluation.smooth_points))
            density = torch.from_numpy(np.ascontiguousarray(evaluation.smooth_charges))
            rest = torch.zeros_like(gradient)
            for some in torch.arange(len(points)).split(POINTS_AT_ONCE):
                delta = places[:, None, :] - points[some][None, :, :]
                slope = smeared_slope(delta.norm(dim=-1), field.splitting)
                rest += torch.einsum("kg,kgc->kc", slope * density[some], delta)
            gradient = gradient + charges[:, None] * rest
        widths = field.near_widths()[near].numpy() if field.smeared else None
        return NearSources(places.numpy(), charges.numpy(), gradient.numpy(), widths)

    def _near_gradient(self, evaluation: Evaluation) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the derivatives by the near sources' positions, and by those of the region's smeared charges."""
        field = self._field
        assert field is not None
        charge_gradient = torch.from_numpy(np.ascontiguousarray(evaluation.charge_gradient))
        if not self.layout.periodic:
            return charge_gradient, charge_gradient[:0]
        n_compact, n_own = self._compact.shape[0], field.own_charges.shape[0]
        near = torch.zeros_like(field.near_positions)
        near.index_add_(0, self._compact, charge_gradient[:n_compact])
        # The smeared charges that come last sit on the region's own atoms.
        own = charge_gradient[n_compact:]
        if self._near_mesh is not None:
            points = torch.from_numpy(np.ascontiguousarray(evaluation.smooth_points))
            charges = torch.from_numpy(np.ascontiguousarray(evaluation.smooth_charges))
            places, mesh_charges = self._mesh_charges()
            pull = mesh_charges[:, None] * self._near_mesh.adjoint(points, charges, places)
            near.index_add_(0, self._on_mesh, pull[:-n_own])
            own = own + pull[-n_own:]
        return near, own

    def _check(self, energy: float, gradient: FloatArray) -> None:
        if not np.isfinite(energy):
            raise NonFiniteError(f"term {self.name!r} has the energy {energy}")
        wrong = np.flatnonzero(~np.isfinite(gradient).all(axis=1))
        if len(wrong):
            raise NonFiniteError(f"term {self.name!r} has forces that are not numbers on atoms {listed(wrong)}")
