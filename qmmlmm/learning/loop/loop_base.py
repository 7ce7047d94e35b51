"""The base of a loop: the level that moves walkers before there is a model, and to which models are differences."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from qmmlmm.coupling.hamiltonian import Term
from qmmlmm.coupling.level_of_theory import Difference, LevelOfTheory
from qmmlmm.coupling.potential import EvaluatedPotential, RegionSpecification
from qmmlmm.errors import DataSetError, LoopError, QmmlmmError, QmmlmmWarning, listed
from qmmlmm.learning.labels.difference_labels import check_base, difference_labels
from qmmlmm.learning.labels.labelled_frame import LabelledFrame
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings


class LoopBase:
    """Turns the labels of a loop into differences to its base. The base is evaluated once for each label.

    Parameters
    ----------
    potential : EvaluatedPotential
    term : Term
        Term of the labels.
    method : str
        Name of the method of the labels.

    Raises
    ------
    LoopError
        If the potential cannot be the base of these labels.
    """

    def __init__(self, potential: EvaluatedPotential, term: Term, method: str) -> None:
        self.potential = potential
        self._target = LevelOfTheory(method, term.potential.level_of_theory.settings)
        try:
            self.difference = check_base(potential, self._target)
        except QmmlmmError as error:
            raise LoopError(str(error)) from error
        capabilities = potential.capabilities
        if term.embedding not in capabilities.embeddings:
            raise LoopError(
                f"base: {self.difference.base} has no {term.embedding} embedding, which the term of the labels has; it "
                f"can do: {listed(sorted(capabilities.embeddings))}"
            )
        if term.widths is not None and not capabilities.smeared_charges:
            raise LoopError(f"base: {self.difference.base} cannot feel smeared_charges, which the labels have")
        if capabilities.state != term.potential.capabilities.state:
            raise LoopError(
                f"base: {self.difference.base} is of the electronic state {capabilities.state}, the labels are of "
                f"{term.potential.capabilities.state}"
            )
        self._known: dict[int, LabelledFrame | None] = {}

    def check(self, specification: RegionSpecification, network: ResponseSettings) -> None:
        """Raise LoopError if the base cannot treat a region, or the network no difference."""
        if network.dispersion is not None:
            raise LoopError("network: dispersion is a part of the energy of one level; with a base leave it out")
        try:
            self.potential.check(specification)
        except QmmlmmError as error:
            raise LoopError(f"base: {error}") from error

    def learned(self, labels: Sequence[tuple[int, LabelledFrame]]) -> list[LabelledFrame]:
        """Return the differences of labels, each with the number of its job.

        A label whose geometry the base cannot compute is left out, with a warning.
        """
        for job, frame in labels:
            if job in self._known:
                continue
            try:
                self._known[job] = difference_labels([frame], self.potential, target=self._target).frames[0]
            except DataSetError as error:
                warnings.warn(f"a label is not learned: {error}", QmmlmmWarning, stacklevel=2)
                self._known[job] = None
        return [found for job, _ in labels if (found := self._known[job]) is not None]


def check_given_model(model: ResponseNetwork, base: LoopBase | None) -> None:
    """Raise LoopError if a model to start from is a difference to another base, or to none where there is one."""
    mine, wanted = model.difference, None if base is None else base.difference
    # The target's settings are not compared: a model that was trained on a file of labels has only its method.
    if _ends(mine) != _ends(wanted):
        raise LoopError(
            f"model: it is {_what(mine)}, the loop learns {_what(wanted)}; give the base of its training, or another "
            "model"
        )


def _ends(difference: Difference | None) -> tuple[str, LevelOfTheory] | None:
    return None if difference is None else (difference.target.method, difference.base)


def _what(difference: Difference | None) -> str:
    return "the energy of one level" if difference is None else f"the difference {difference}"
