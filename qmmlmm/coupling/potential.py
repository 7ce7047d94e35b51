"""The contract between the coupling and anything that gives a region its energy.

A *potential* holds settings only; it is immutable and picklable, and can serve many regions. Asked for an
*evaluator* it returns the object that computes one region at one geometry after another and may keep what
speeds this up (the last density, a loaded model).

Everything here is in atomic units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from qmmlmm.units import FloatArray, IntArray


@dataclass(frozen=True)
class RegionSpecification:
    """What an evaluator is made for: the atoms of a region with its link hydrogens at the end.

    Parameters
    ----------
    name : str
        Name of the term, for messages.
    atomic_numbers : (n,) int array
    charge, multiplicity : int
    """

    name: str
    atomic_numbers: IntArray
    charge: int
    multiplicity: int


@dataclass(frozen=True)
class ExternalField:
    """The potential of all that surrounds a region, at one geometry.

    It is a sum of compact charges and of a smooth rest:

        phi(r) = sum_k q_k erf(|r - r_k| / w_k) / |r - r_k| + sum_k g_k erf(a |r - r_k|) / |r - r_k| + smooth(r)

    The first sum is that of points, 1/|r - r_k|, unless the user asked for charges with widths w_k; a width of zero
    is that of a point. Without a box only the first sum is there. In a box the second has g_k = -q_k for the
    charges of the surroundings inside the short-range cutoff, so that a point acts by erfc(a r)/r, and for the
    region's own reference charges only the second sum is there: it takes their nearest image, which is the region
    itself, out of the smooth part.

    Parameters
    ----------
    positions : (k, 3) float array, bohr
    point_charges : (k,) float array, e
    gaussian_charges : (k,) float array, e
        Charges g_k of Gaussian distributions with exponent a^2; all zero without a box.
    splitting : float or None, 1/bohr
        The Ewald splitting parameter a; None without a box.
    smooth_potential : callable or None
        Maps points, (g, 3) bohr, to the smooth part, (g,) hartree/e, and its gradient, (g, 3)
        hartree/(e bohr). None without a box.
    widths : (k,) float array or None, bohr
        Widths w_k of the charges q_k; None if all are points. Only potentials that say that they take smeared charges
        are given widths, see `takes_smeared_charges`.
    """

    positions: FloatArray
    point_charges: FloatArray
    gaussian_charges: FloatArray
    splitting: float | None = None
    smooth_potential: Callable[[FloatArray], tuple[FloatArray, FloatArray]] | None = None
    widths: FloatArray | None = None


def _none() -> FloatArray:
    return np.zeros((0, 3))


@dataclass(frozen=True)
class Evaluation:
    """Energy of a region in its surroundings and what its forces are made of.

    Parameters
    ----------
    energy : float, hartree
        Energy of the region's electrons and nuclei, with their interaction with the external field. The
        energy of the external charges among themselves is not in it.
    gradient : (n, 3) float array, hartree/bohr
        Derivative with respect to the positions of the region's atoms and link atoms, at a fixed external
        field phi(r).
    charge_gradient : (k, 3) float array, hartree/bohr
        Derivative with respect to `ExternalField.positions`.
    smooth_points : (g, 3) float array, bohr
    smooth_charges : (g,) float array, e
        The charge of the region as it felt the smooth part: the energy depends on the smooth part as
        sum_g smooth_charges[g] * smooth(smooth_points[g]). From these the coupling derives the forces on the
        surroundings; the forces on the region's own atoms are in `gradient`.
    results : dict
        Anything else worth reporting, such as dipole, SCF cycles or charges.
    charge_energies : callable or None
        Returns the energy of the region, as it is in this result, in the potential of each entry of
        `ExternalField.positions`, point and Gaussian charge together, (k,) hartree. Computed when called; None if
        the evaluator cannot tell.
    coupling : callable or None
        Of two electronic states at this geometry, until the next one is computed: returns two evaluations, whose
        energies and derivatives differ by E(second) - E(first) and by the derivative coupling <first | gradient of
        second> times that. None if the evaluator has no couplings.
    """

    energy: float
    gradient: FloatArray
    charge_gradient: FloatArray = field(default_factory=_none)
    smooth_points: FloatArray = field(default_factory=_none)
    smooth_charges: FloatArray = field(default_factory=lambda: np.zeros(0))
    results: dict[str, object] = field(default_factory=dict)
    charge_energies: Callable[[], FloatArray] | None = None
    coupling: Callable[[int, int], tuple[Evaluation, Evaluation]] | None = None


class Evaluator(Protocol):
    """Computes one region, at one geometry after another.

    It may have a method `forget`, after which it computes as if it were new, and a method `summary`, which returns
    what it counted as a dict that `json` can write. If its potential has several electronic states, it has
    `select_state(index)`, which chooses the one with the forces, and `memory()` and `recall(memory)`, which hand what
    it needs of the last geometry to a checkpoint, as a dict of arrays.
    """

    def evaluate(self, positions: FloatArray, external_field: ExternalField | None) -> Evaluation:
        """Return energy and derivatives.

        Parameters
        ----------
        positions : (n, 3) float array, bohr
            Of the region's atoms, then of its link atoms.
        external_field : ExternalField or None
            None with mechanical embedding.

        Raises
        ------
        EvaluationError
            If there is no trustworthy result. Never returns old or zero forces instead.
        """
        ...


class PeriodicEvaluator(Evaluator, Protocol):
    """An evaluator of a potential that is `long_range`."""

    def evaluate_in_box(self, positions: FloatArray, box: FloatArray) -> Evaluation:
        """Return energy and derivatives of the region with its own periodic images.

        Parameters
        ----------
        positions : (n, 3) float array, bohr
            Of the region's atoms, then of its link atoms, in one image.
        box : (3, 3) float array, bohr
            Box vectors in rows.

        Raises
        ------
        EvaluationError
            As `evaluate`.
        """
        ...


def is_long_range(potential: object) -> bool:
    """Return whether a potential computes the region's interaction with its own periodic images itself.

    It says so by an attribute ``long_range`` that is true; its evaluators are `PeriodicEvaluator` then. The images
    of any other region act through the force field's charges.
    """
    return bool(getattr(potential, "long_range", False))


def takes_smeared_charges(potential: object) -> bool:
    """Return whether the evaluators of a potential know `ExternalField.widths`.

    It says so by an attribute ``takes_smeared_charges`` that is true.
    """
    return bool(getattr(potential, "takes_smeared_charges", False))


def selectable_states(potential: object) -> int:
    """Return how many electronic states the evaluators of a potential can switch between; 0 if they cannot.

    The potential says so by an attribute ``selectable_states``; its attribute ``state`` is the first one then.
    """
    return int(getattr(potential, "selectable_states", 0))


class RegionPotential(Protocol):
    """The energy function of a region: settings, without state."""

    @property
    def level(self) -> str:
        """``"QM"``, ``"ML"`` or ``"MM"``: the second part of a term's name."""
        ...

    @property
    def embeddings(self) -> frozenset[str]:
        """The embeddings that this potential can be used with."""
        ...

    def check(self, specification: RegionSpecification) -> None:
        """Raise PotentialError or RegionError if the potential cannot treat this region."""
        ...


class EvaluatedPotential(RegionPotential, Protocol):
    """A potential that runs in Python, through `openmm.PythonForce`.

    It may have an attribute `short_range_splitting`, in 1/bohr: in a box it then gets as compact charges only what
    this Ewald splitting parameter leaves, which is less if it is larger than the force field's, and all else in
    the smooth part, through a finer mesh. For evaluators to which compact charges are dear. And it may have an
    attribute `mesh_order`: the order of the splines on the force field's mesh, OpenMM's 5 if it has none. For
    evaluators with a density, whose nuclei and electrons feel the error of the mesh one by one.
    """

    def create_evaluator(self, specification: RegionSpecification) -> Evaluator:
        """Return a fresh evaluator for one region.

        Raises
        ------
        PotentialError, RegionError
            As `check`.
        """
        ...
