"""A trained response of one molecule to the field of its surroundings, for any potential as base."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from qmmlmm.coupling.potential import RegionSpecification
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
from qmmlmm.ml.own_module import frozen, scripted
from qmmlmm.ml.recorded_network import RecordedNetwork, needed_operations
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.setting_checks import check_instance


class ResponseModel:
    """The response of a molecule by a network that was trained on labels with the field.

    Parameters
    ----------
    network : ResponseNetwork
        Network of `qmmlmm.learning.train(..., response_only=True)`, whose present weights are used.

    Raises
    ------
    PotentialError
        If it is no network, or has an energy in a vacuum.

    Notes
    -----
    E = sum_i (q_i phi_i - mu_i . F_i - 1/2 F_i . (alpha_i + A_i) . F_i) - 1/2 sum_{i<j} kappa_ij (phi_i - phi_j)^2 +
        E_near

    Charges, dipoles, polarisabilities, charge flow and the coefficients of E_near are functions of the geometry, see
    `ResponseNetwork`. Charges add up to the total charge. The energy is exactly zero without surroundings.
    """

    def __init__(self, network: ResponseNetwork) -> None:
        check_instance("network", network, ResponseNetwork, error=PotentialError)
        if not network.response_only:
            raise PotentialError(
                "network: it has an energy in a vacuum, which the base of an EmbeddedPotential has; train it with "
                "train(frames, response_only=True), or use it by itself: region_potential(network)"
            )
        if network.is_general:
            raise PotentialError("network: it is for many molecules; GeneralResponse(network) uses it")
        self.network = frozen(network)
        # Recording a network takes seconds, so that it waits until a simulation needs it.
        self._recorded: dict[bool, torch.jit.ScriptModule] = {}

    @property
    def atomic_numbers(self) -> list[int]:
        """Atomic numbers of the molecule, in order."""
        return list(self.network.atomic_numbers)

    @property
    def members(self) -> int:
        """Number of members of the committee."""
        return self.network.members

    def module(self, each_member: bool = False) -> torch.jit.ScriptModule:
        """Return the network as TorchScript for inputs with a field, see `qmmlmm.ml.MLPotential`.

        Parameters
        ----------
        each_member : bool
            Whether derivatives of each ``member_energies`` are asked for, too.
        """
        if each_member not in self._recorded:
            names = needed_operations(self.network, surrounded=True, each_member=each_member)
            self._recorded[each_member] = scripted(RecordedNetwork(self.network, names))
        return self._recorded[each_member]

    def __call__(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the energy in the surroundings, as the contract of `qmmlmm.MLPotential`; zero without them."""
        if "potential" not in inputs:
            return {"energy": 0.0 * inputs["positions"].sum()}
        return dict(self.module()(inputs))

    def fingerprint(self) -> str:
        """Return a hash of settings and weights, the same for the same response everywhere."""
        return network_checksum(self.network)[:16]

    def check(self, specification: RegionSpecification, state: int = 0) -> None:
        """Raise PotentialError if the response is of another molecule, charge, multiplicity or state.

        Parameters
        ----------
        specification : RegionSpecification
        state : int
            Electronic state of the base.
        """
        numbers = [int(z) for z in specification.atomic_numbers]
        if numbers != self.atomic_numbers:
            raise PotentialError(
                f"term {specification.name!r}: the response is for the atoms {listed(self.atomic_numbers, 30)}; the "
                f"region has {listed(numbers, 30)}"
            )
        condition = (specification.charge, specification.multiplicity, state)
        known = self.network.known_conditions()
        if condition not in known:
            raise PotentialError(
                f"term {specification.name!r}: the response was not trained for (charge, multiplicity, state) "
                f"{condition}; it knows {listed(known, 20)}. Change the Region, or train with labels of this surface"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file with numbers and no code, for `load`.

        Raises
        ------
        PotentialError
            If it cannot be written.
        """
        save_response(self.network, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ResponseModel:
        """Read a file of `save`.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        PotentialError
            If it is damaged, has another format version, or is no response.
        """
        network = network_of(read_model_file(path), path)
        if not network.response_only:
            raise PotentialError(
                f"{os.fspath(path)!r} is a potential with an energy in a vacuum and no response; read it with "
                "MLPotential.load"
            )
        if network.is_general:
            raise PotentialError(f"{os.fspath(path)!r} is for many molecules; read it with GeneralResponse.load")
        return cls(network)

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (network_settings(self.network), network_weights(self.network))

    def __repr__(self) -> str:
        members = f", members={self.members}" if self.members > 1 else ""
        return f"ResponseModel(atoms={len(self.atomic_numbers)}, fingerprint={self.fingerprint()!r}{members})"


def _restore(settings: dict[str, object], weights: bytes) -> ResponseModel:
    return ResponseModel(create_network(settings, weights))
