"""A trained response of many molecules to the field of their surroundings, for any potential as base."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from pathlib import Path

import torch

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.elements import SYMBOLS, check_elements
from qmmlmm.errors import PotentialError, listed
from qmmlmm.ml.model_file import read_model_file
from qmmlmm.ml.network_file import (
    create_network,
    network_checksum,
    network_of,
    network_settings,
    network_weights,
    save_response,
)
from qmmlmm.ml.response_model import ResponseModel
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.setting_checks import check_instance

SHIPPED = Path(__file__).with_name("general_response.pt")
"""Response to the field at the level B3LYP/6-31G*, which `docs/embedded_potentials.md` describes."""

ADVICE = "label this molecule, and fit a FixedResponse or train a ResponseModel"


class GeneralResponse:
    """The response of any molecule of some elements, by one network that was trained on many molecules.

    Parameters
    ----------
    network : ResponseNetwork
        Network with ``elements`` and ``response_only=True``, see `qmmlmm.learning.train_general_response`.

    Raises
    ------
    PotentialError
        If it is no network, or one of a single molecule.

    Notes
    -----
    The energy is that of `ResponseModel`. An atom's charge, dipole and polarisability depend on its element and on the
    elements and positions of its neighbours within the cutoff of each layer of the network; charges add up to the total
    charge of the region. Closed shells in their lowest state only.
    """

    def __init__(self, network: ResponseNetwork) -> None:
        check_instance("network", network, ResponseNetwork, error=PotentialError)
        if not network.is_general:
            raise PotentialError(
                "network: it is for one molecule; train_general_response makes one of many molecules, and "
                "ResponseModel(network) uses one of a single molecule"
            )
        self.network = copy.deepcopy(network).eval()
        # File and checksum do not depend on the molecule for which the network was used before.
        self.network.become(self.network.elements[:1])
        # Recording a network takes seconds.
        self._molecules: dict[tuple[int, ...], ResponseModel] = {}

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that the response knows."""
        return list(self.network.elements)

    @property
    def charges(self) -> list[int]:
        """Total charges of the molecules of the training."""
        return sorted(charge for charge, *_ in self.network.known_conditions())

    def of_molecule(self, atomic_numbers: Iterable[int]) -> ResponseModel:
        """Return the response of one molecule, for any of the charges.

        Parameters
        ----------
        atomic_numbers : iterable of int

        Raises
        ------
        PotentialError
            If the response does not know an element.
        """
        numbers = check_elements("atomic_numbers", atomic_numbers)
        if numbers not in self._molecules:
            self._check_elements("the molecule", list(numbers))
            self._molecules[numbers] = self._created(numbers)
        return self._molecules[numbers]

    def _created(self, numbers: tuple[int, ...]) -> ResponseModel:
        source = self.network
        with torch.random.fork_rng(devices=[]):
            single = ResponseNetwork(
                numbers,
                (),
                source.settings,
                source.known_conditions(),
                source.members,
                source.embedding.dtype,
                response_only=True,
            )
        rows = torch.tensor([source.elements.index(z) for z in single.elements])
        learned = dict(source.named_parameters())
        with torch.no_grad():
            for name, weight in single.named_parameters():
                of_elements = name in ("embedding", "condition_embedding")
                weight.copy_(learned[name].index_select(-2, rows) if of_elements else learned[name])
            single.uncertainty_scale.copy_(source.uncertainty_scale)
        return ResponseModel(single)

    def check(self, specification: RegionSpecification, state: int = 0) -> None:
        """Raise PotentialError if the response does not know an element, the charge, the multiplicity or the state.

        Parameters
        ----------
        specification : RegionSpecification
        state : int
            Electronic state of the base.
        """
        where = f"term {specification.name!r}"
        self._check_elements(where, [int(z) for z in specification.atomic_numbers])
        if specification.charge not in self.charges:
            raise PotentialError(
                f"{where}: the response knows molecules with the charges {listed(self.charges, 20)}, and this one has "
                f"{specification.charge}; {ADVICE}"
            )
        if specification.multiplicity != 1 or state != 0:
            raise PotentialError(
                f"{where}: a response of many molecules is for closed shells in their lowest state, and this is "
                f"multiplicity {specification.multiplicity}, state {state}; {ADVICE}"
            )

    def _check_elements(self, where: str, numbers: list[int]) -> None:
        unknown = sorted(set(numbers) - set(self.elements))
        if unknown:
            raise PotentialError(
                f"{where}: the response knows the elements {_symbols(self.elements)}, and there is "
                f"{_symbols(unknown)}; {ADVICE}"
            )

    def fingerprint(self) -> str:
        """Return a hash of settings and weights, the same for the same response everywhere."""
        return network_checksum(self.network)[:16]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file with numbers and no code, for `load`.

        Raises
        ------
        PotentialError
            If it cannot be written.
        """
        save_response(self.network, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> GeneralResponse:
        """Read a file of `save`, or the response that comes with qmmlmm.

        Parameters
        ----------
        path : path, optional
            By default the response at the level B3LYP/6-31G* for small closed-shell organic molecules of H, C, N, O, F,
            S and Cl with a charge of -1, 0 or 1.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        PotentialError
            If it is damaged, has another format version, or is no response of many molecules.
        """
        path = SHIPPED if path is None else path
        network = network_of(read_model_file(path), path)
        if not network.is_general:
            raise PotentialError(f"{os.fspath(path)!r} is of one molecule; read it with ResponseModel.load")
        return cls(network)

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (network_settings(self.network), network_weights(self.network))

    def __repr__(self) -> str:
        return f"GeneralResponse(elements={_symbols(self.elements)!r}, fingerprint={self.fingerprint()!r})"


def _symbols(numbers: list[int]) -> str:
    return ", ".join(SYMBOLS[z - 1] for z in numbers)


def _restore(settings: dict[str, object], weights: bytes) -> GeneralResponse:
    return GeneralResponse(create_network(settings, weights))
