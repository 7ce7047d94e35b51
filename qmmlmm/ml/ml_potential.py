"""Learned potentials of a region: wrapping, saving, loading."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch.export import ExportedProgram

from qmmlmm.coupling.level_of_theory import Difference, LevelOfTheory
from qmmlmm.coupling.potential import EMBEDDINGS, Capabilities, RegionSpecification
from qmmlmm.elements import check_elements
from qmmlmm.embedding.module_evaluator import ModuleEvaluator
from qmmlmm.embedding.module_potential import ModulePotential
from qmmlmm.errors import PotentialError, listed, nearest
from qmmlmm.ml.compiled_network import compiled_module, find_network
from qmmlmm.ml.conditions import check_conditions
from qmmlmm.ml.model_file import ModelFile, read_model_file, write_model_file
from qmmlmm.ml.module_trial import result_fault
from qmmlmm.ml.network_file import (
    create_network,
    network_checksum,
    network_of,
    network_settings,
    network_weights,
)
from qmmlmm.ml.own_module import (
    OwnModule,
    OwnProgram,
    archive_of,
    argument_names,
    frozen,
    read_archive,
    read_own_module,
    scripted,
    scripted_checksum,
)
from qmmlmm.ml.recorded_network import ALL_OPERATIONS, OperationsName, RecordedNetwork, needed_operations
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.static_network import StaticNetwork, check_static_network
from qmmlmm.setting_checks import check_flag, check_whole_number, is_whole_number

SETTINGS = ("elements", "atomic_numbers", "embeddings", "charge", "multiplicity", "conditions", "state")


class MLPotential(ModulePotential):
    """A learned potential: a torch module with its elements, embeddings, charges and states.

    Parameters
    ----------
    module : torch.nn.Module, torch.jit.ScriptModule, torch.export.ExportedProgram or path
        Module whose ``forward`` has one of three forms; all tensors are float64 and in atomic units:

        - ``forward(positions) -> energy``
        - ``forward(positions, potential, field) -> energy``
        - ``forward(inputs: Dict[str, Tensor]) -> Dict[str, Tensor]`` with the inputs ``atomic_numbers`` (n,)
          int64, ``charge`` (), ``multiplicity`` (), ``state`` (), ``positions`` (n, 3) bohr and, with electrostatic
          embedding, ``potential`` (n,) hartree/e and ``field`` (n, 3) hartree/(e bohr), which is minus its gradient.
          The inputs ``near_positions`` (k, 3) bohr and ``near_charges`` (k,) e are for terms that do not depend on the
          potential at the atoms only: the charges of the surroundings within the short-range cutoff, or all charges
          without a box. The potential includes them already; additional terms must go to zero with their derivatives
          well inside that cutoff. With `Term(..., smeared_charges=...)` potential and field are those of Gaussian
          charges, as they should be in the labels of the model. The result has ``energy`` in hartree and, for a
          committee, ``member_energies``, which have to be differentiable only with the input ``each_member``.
          ``charges`` (n,) e, if there are any, are for ``EmbeddedPotential(..., ModelCharges())``.

        The energy is differentiated by autograd, so every operation on positions, potential and field has to be
        differentiable. TorchForce freezes the module, which drops `detach`; use ``torch.no_grad`` instead. Energies
        are absolute if the potential is to be corrected by a QM term.

        A module is turned into TorchScript. A program of ``torch.export.export`` is called from Python, so that its
        term runs through PythonForce. Export it with a dimension of its own for the number of atoms, or with the atoms
        of the region.
    elements : iterable of int or str, optional
        Atomic numbers or symbols of the model's elements.
    atomic_numbers : iterable of int or str, optional
        Atomic numbers or symbols of a model of one molecule, in order, link hydrogens last. Exactly one of `elements`
        and `atomic_numbers` is given.
    embeddings : iterable of {"mechanical", "electrostatic"}
        Embeddings that the model supports. A model of the form ``forward(positions)`` is mechanical; one of the form
        ``forward(positions, potential, field)`` gets zeros for the last two with mechanical embedding.
    charge, multiplicity : int, optional
        Charge and multiplicity of a model of one charge and spin state; None for a model that takes them as inputs.
    conditions : iterable of (int, int, int), optional
        Charge, multiplicity and electronic state of each surface of the model, instead of `charge` and
        `multiplicity`. A region with another one is an error.
    state : int
        Electronic state of a term: 0 is the lowest of the region's multiplicity. Others need `conditions`.
    trust_code : bool
        Whether the code in a file of TorchScript (``.pt``) or of torch.export (``.pt2``), whose path is given as the
        module, may run. It runs when the file is read and can read and overwrite your files.
    difference : Difference, optional
        The two levels whose difference the module is, for `Term(..., correction=True)`; a `ResponseNetwork` has them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PotentialError
        If the module cannot be turned into TorchScript, is in a file that is not trusted, or an argument has the wrong
        type, is out of range or does not go with another.
    """

    level = "ML"

    def __init__(
        self,
        module: OwnModule | str | os.PathLike[str],
        *,
        elements: Iterable[int | str] | None = None,
        atomic_numbers: Iterable[int | str] | None = None,
        embeddings: Iterable[str] = ("mechanical",),
        charge: int | None = 0,
        multiplicity: int | None = 1,
        conditions: Iterable[tuple[int, int, int]] | None = None,
        state: int = 0,
        trust_code: bool = False,
        difference: Difference | None = None,
    ) -> None:
        check_flag("trust_code", trust_code, PotentialError)
        if (elements is None) == (atomic_numbers is None):
            raise PotentialError(
                "give either elements=[...], for a model that takes any molecule of these, or atomic_numbers=[...], "
                "for a model of one molecule"
            )
        self.atomic_numbers = None if atomic_numbers is None else check_elements("atomic_numbers", atomic_numbers)
        self.elements = frozenset(self.atomic_numbers or check_elements("elements", elements))
        self.embeddings = _checked_embeddings(embeddings)
        self.conditions = None if conditions is None else tuple(sorted(check_conditions(conditions)))
        charge = _checked_input("charge", charge, -1000)
        multiplicity = _checked_input("multiplicity", multiplicity, 1)
        self.charge = charge if self.conditions is None else None
        self.multiplicity = multiplicity if self.conditions is None else None
        self.state = _checked_state(state, self.conditions)
        if isinstance(module, str | os.PathLike):
            module = read_own_module(module, trust_code=trust_code)
        if isinstance(module, ResponseNetwork) and module.response_only:
            raise PotentialError(
                "the network is a response to surroundings without an energy in a vacuum; use it with a base: "
                "EmbeddedPotential(base, ResponseModel(network)), or from a file ResponseModel.load(path)"
            )
        self.network = frozen(module) if isinstance(module, ResponseNetwork) else None
        self._program = OwnProgram(module) if isinstance(module, ExportedProgram) else None
        self._difference = _checked_difference(difference, self.network)
        # Recording a network takes seconds, so that it waits until a simulation needs it.
        self._recorded: dict[tuple[tuple[OperationsName, ...], bool], torch.jit.ScriptModule] = {}
        self._own: torch.jit.ScriptModule | None = None
        names = ["inputs"]
        if self._program is not None:
            self._own, names = self._program.scripted, self._program.names
        elif self.network is None:
            assert not isinstance(module, ExportedProgram)
            self._own = scripted(module)
            names = argument_names(module)
        if "electrostatic" in self.embeddings and names == ["positions"]:
            raise PotentialError(
                "a module with forward(positions) does not feel the surroundings: use embeddings=['mechanical'], or "
                "give it the form forward(positions, potential, field)"
            )

    @property
    def module(self) -> torch.jit.ScriptModule:
        """The model as TorchScript, whose ``forward`` takes and returns dictionaries."""
        return self._of_operations(ALL_OPERATIONS)

    @property
    def runs_in_python(self) -> bool:
        """Whether the model is an exported program, which Python calls."""
        return self._program is not None

    def term_module(
        self, surrounded: bool, *, each_member: bool = False, compiled: bool = False
    ) -> torch.jit.ScriptModule:
        """Return the model for one term, see `qmmlmm.embedding.module_potential.ModulePotential`."""
        return self._of_operations(self._operations(surrounded, each_member), compiled)

    def not_compiled_because(self, surrounded: bool) -> str:
        """Return why no compiled network is used, see `qmmlmm.embedding.module_potential.ModulePotential`."""
        if self.network is None:
            return "only networks of qmmlmm train are compiled, and not modules of your own"
        return find_network(self.network, self._operations(surrounded, False)[0]).reason

    def _operations(self, surrounded: bool, each_member: bool) -> tuple[OperationsName, ...]:
        """Return the lists of operations that a term of a network needs."""
        if self.network is None:
            return ()
        return needed_operations(self.network, surrounded, each_member)

    def _of_operations(self, names: tuple[OperationsName, ...], compiled: bool = False) -> torch.jit.ScriptModule:
        """Return a module with these operations of the network, or the user's own module."""
        if self.network is None:
            assert self._own is not None
            return self._own
        if (names, compiled) not in self._recorded:
            found = {name: compiled_module(self.network, name) for name in names if compiled}
            usable = {name: module for name, module in found.items() if module is not None}
            if compiled and not usable:
                return self._of_operations(names)
            self._recorded[names, compiled] = scripted(RecordedNetwork(self.network, names, usable))
        return self._recorded[names, compiled]

    @property
    def difference(self) -> Difference | None:
        """The two levels whose difference the model is; None if its energy is that of one level."""
        return self._difference

    @property
    def level_of_theory(self) -> LevelOfTheory:
        """The model, by its fingerprint and electronic state."""
        return LevelOfTheory(self.method_name, {"fingerprint": self.fingerprint(), "state": self.state})

    def fingerprint(self) -> str:
        """Return a hash of the model's settings or code and its numbers, the same for the same model everywhere."""
        if self.network is not None:
            return network_checksum(self.network)[:16]
        if self._program is not None:
            return self._program.checksum()[:16]
        return scripted_checksum(self.module)[:16]

    def __repr__(self) -> str:
        state = f", state={self.state}" if self.state else ""
        difference = "" if self.difference is None else f", difference={str(self.difference)!r}"
        return f"MLPotential(elements={sorted(self.elements)}, fingerprint={self.fingerprint()!r}{state}{difference})"

    def check(self, specification: RegionSpecification) -> None:
        """Raise PotentialError if the model does not know this region's atoms, charge, multiplicity or state.

        A module of your own is called once, to see that it returns one energy that depends on positions.
        """
        numbers = [int(z) for z in specification.atomic_numbers]
        unknown = sorted(set(numbers) - self.elements)
        if unknown:
            raise PotentialError(
                f"term {specification.name!r}: the ML model does not know the elements with atomic numbers "
                f"{listed(unknown)}; it was made for {listed(sorted(self.elements), 20)}"
            )
        if self.atomic_numbers is not None and tuple(numbers) != self.atomic_numbers:
            raise PotentialError(
                f"term {specification.name!r}: the ML model is for one molecule of {len(self.atomic_numbers)} atoms in "
                f"the order {listed(self.atomic_numbers, 30)}; the region has {len(numbers)} atoms in the order "
                f"{listed(numbers, 30)}"
            )
        for label, mine, asked in (
            ("charge", self.charge, specification.charge),
            ("multiplicity", self.multiplicity, specification.multiplicity),
        ):
            if mine is not None and mine != asked:
                raise PotentialError(
                    f"term {specification.name!r}: the ML model is for {label} {mine}, the region has {label} {asked}"
                )
        condition = (specification.charge, specification.multiplicity, self.state)
        if self.conditions is not None and condition not in self.conditions:
            raise PotentialError(
                f"term {specification.name!r}: the ML model was not trained for (charge, multiplicity, state) "
                f"{condition}; it knows {listed(self.conditions, 20)}. Change the Region or the potential's state, or "
                "train with labels of this surface"
            )
        if self.network is None:
            fault = result_fault(self.module, specification, self.state, "electrostatic" in self.embeddings)
            if fault:
                raise PotentialError(f"term {specification.name!r}: the ML model {fault}")

    @property
    def capabilities(self) -> Capabilities:
        """The embeddings and the electronic state; charges of the surroundings may be Gaussian distributions."""
        return Capabilities(self.embeddings, state=self.state, smeared_charges=True)

    def create_evaluator(self, specification: RegionSpecification) -> ModuleEvaluator:
        """Return a fresh evaluator for one region, which calls the module from Python.

        In a System, one module computes the potential and its surroundings instead (`qmmlmm.embedding.torch_term`).

        Raises
        ------
        PotentialError
            As `check`.
        """
        self.check(specification)
        return ModuleEvaluator(specification, self._of_operations(("alone", "surrounded")), self.state)

    def create_static_model(
        self, specification: RegionSpecification, surrounded: bool = True, compiled_for: str | None = None
    ) -> StaticNetwork:
        """Return the model of one region, for `qmmlmm.embedding.static_term`. Only a ResponseNetwork has one."""
        check_static_network(self.network, specification.name)
        assert self.network is not None
        (name,) = needed_operations(self.network, surrounded, False)
        compiled = None if compiled_for is None else compiled_module(self.network, name, compiled_for)
        return StaticNetwork(self.network, specification, self.state, surrounded, compiled)

    def _settings(self) -> dict[str, Any]:
        """Return all arguments but the module, as JSON values; the difference of a network is with its settings."""
        own = None if self.network is not None else self.difference
        return {
            **({} if own is None else {"difference": own.as_json()}),
            "elements": None if self.atomic_numbers is not None else sorted(self.elements),
            "atomic_numbers": self.atomic_numbers,
            "embeddings": sorted(self.embeddings),
            "charge": self.charge,
            "multiplicity": self.multiplicity,
            "conditions": self.conditions,
            "state": self.state,
        }

    def __reduce__(self) -> tuple[object, ...]:
        if self.network is not None:
            return (
                _restore_network,
                (network_settings(self.network), network_weights(self.network), self._settings()),
            )
        return (_restore, (self._archived(), self._settings()))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a model file for `load`: settings, weights or the TorchScript of an own module, and their checksums.

        Raises
        ------
        PotentialError
            If the file cannot be written.
        """
        settings: dict[str, object] = {"potential": self._settings(), "units": "atomic units: bohr, hartree, e"}
        if self.network is not None:
            settings["network"] = network_settings(self.network)
            write_model_file(path, ModelFile(settings, weights=network_weights(self.network)))
        else:
            write_model_file(path, ModelFile(settings, module=self._archived()))

    def _archived(self) -> bytes:
        return archive_of(self.module) if self._program is None else self._program.archive()

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, state: int | None = None, trust_code: bool = False) -> MLPotential:
        """Read a model file.

        The file of a `qmmlmm.ml.ResponseNetwork`, as `qmmlmm train` writes it, has numbers and no code. The file of any
        other module has TorchScript or a program of torch.export, which are code: it can read and overwrite your files.
        Such a file is only read with ``trust_code=True``. Read no file in this way whose origin you do not know.

        Parameters
        ----------
        path : path
        state : int, optional
            Electronic state, if not the one that the file was saved with.
        trust_code : bool
            Whether a file with code may be read.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        PotentialError
            If it is damaged, is not a model that `save` wrote, or has code that is not trusted.
        """
        check_flag("trust_code", trust_code, PotentialError)
        content = read_model_file(path)
        module = _module_of(content, path, trust_code)
        settings = _settings_in(content, module, path)
        if state is not None:
            settings["state"] = state
        return _create(module, settings)


def region_potential(model: ResponseNetwork) -> MLPotential:
    """Return a trained network as the potential of its region.

    Parameters
    ----------
    model : ResponseNetwork
        Trained network. The potential is valid for the charges, multiplicities and electronic states of its training;
        `MLPotential.load` takes the state.
    """
    return MLPotential(model, **_region_settings(model))


def _settings_in(content: ModelFile, module: OwnModule, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the arguments of a potential that a model file has, but the module."""
    found = content.settings.get("potential")
    if found is None and isinstance(module, ResponseNetwork):
        return _region_settings(module)
    if not isinstance(found, dict) or set(SETTINGS) - set(found):
        raise PotentialError(
            f"{os.fspath(path)!r} has no settings of a potential, or not all of {listed(SETTINGS, 10)}; save the model "
            "again"
        )
    return {name: found[name] for name in (*SETTINGS, "difference") if name in found}


def _region_settings(model: ResponseNetwork) -> dict[str, Any]:
    """Return the arguments of the `MLPotential` of a network, but the network itself."""
    conditions = model.known_conditions()
    return {
        "atomic_numbers": model.atomic_numbers,
        "embeddings": ["electrostatic", "mechanical"] if model.response else ["mechanical"],
        "conditions": conditions,
        "state": min(state for _, _, state in conditions),
    }


def _restore(archive: bytes, settings: dict[str, Any]) -> MLPotential:
    return _create(read_archive(archive, "a serialised potential"), settings)


def _restore_network(network: dict[str, Any], weights: bytes, settings: dict[str, Any]) -> MLPotential:
    return _create(create_network(network, weights), settings)


def _create(module: OwnModule, settings: dict[str, Any]) -> MLPotential:
    """Return a potential from what `MLPotential._settings` returns."""
    if "difference" in settings:
        settings = settings | {"difference": Difference.from_json(settings["difference"])}
    return MLPotential(module, **settings)


def _checked_difference(given: object, network: ResponseNetwork | None) -> Difference | None:
    if given is not None and not isinstance(given, Difference):
        raise PotentialError(f"difference is a Difference of two levels, or None, got {given!r}")
    if network is None:
        return given
    if given is not None and given != network.difference:
        raise PotentialError(
            f"difference is {given}, and the network is "
            f"{'the energy of one level' if network.difference is None else f'the difference {network.difference}'}; "
            "leave difference out"
        )
    return network.difference


def _module_of(content: ModelFile, path: str | os.PathLike[str], trust_code: bool) -> OwnModule:
    if content.module is None:
        return network_of(content, path)
    if not trust_code:
        raise PotentialError(
            f"{os.fspath(path)!r} has a module of its author's own, which is code that runs when it is loaded and "
            "evaluated; if you trust whoever made it, read it with MLPotential.load(path, trust_code=True)"
        )
    return read_archive(content.module, os.fspath(path))


def _checked_embeddings(embeddings: object) -> frozenset[str]:
    choices = ", ".join(map(repr, EMBEDDINGS))
    if isinstance(embeddings, str) or not isinstance(embeddings, Iterable):
        raise PotentialError(f"embeddings is a list of {choices}, got {embeddings!r}")
    found = list(embeddings)
    for name in found:
        if not isinstance(name, str) or name not in EMBEDDINGS:
            raise PotentialError(f"embeddings are among {choices}, got {name!r}.{nearest(str(name), EMBEDDINGS)}")
    if not found:
        raise PotentialError(f"embeddings are among {choices}, got none")
    return frozenset(found)


def _checked_input(name: str, value: object, at_least: int) -> int | None:
    what = "None for a model that takes it as an input, or an integer"
    if value is None:
        return None
    return check_whole_number(name, value, at_least=at_least, at_most=1000, what=what, error=PotentialError)


def _checked_state(state: int, conditions: tuple[tuple[int, int, int], ...] | None) -> int:
    known = {0} if conditions is None else {condition[2] for condition in conditions}
    if not is_whole_number(state) or state not in known:
        advice = "" if conditions is not None else "; a model of several states is given conditions=[...]"
        raise PotentialError(f"the ML model has the electronic states {listed(sorted(known))}, got {state!r}{advice}")
    return int(state)
