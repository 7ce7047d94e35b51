"""Learned potentials of a region: wrapping, saving, loading."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Dict, cast  # noqa: UP035  (TorchScript reads it)

import torch
from torch import Tensor

from qmmlmm.coupling.potential import EMBEDDINGS, Capabilities, EvaluatedPotential, RegionSpecification
from qmmlmm.elements import check_elements
from qmmlmm.embedding.module_evaluator import ModuleEvaluator
from qmmlmm.errors import PotentialError, listed, nearest
from qmmlmm.ml.module_trial import result_fault
from qmmlmm.ml.recorded_network import RecordedNetwork
from qmmlmm.ml.response_network import ResponseNetwork, check_conditions
from qmmlmm.setting_checks import check_whole_number, is_whole_number

FORMAT_VERSION = 2
METADATA_FILE = "qmmlmm.json"
SETTINGS = ("elements", "atomic_numbers", "embeddings", "charge", "multiplicity", "conditions", "state")


class _FromPositions(torch.nn.Module):
    """Adapts a module of the form energy(positions) to the contract."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        return {"energy": self.module(inputs["positions"])}


class _FromPositionsAndField(torch.nn.Module):
    """Adapts a module of the form energy(positions, potential, field) to the contract."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        positions = inputs["positions"]
        potential = torch.zeros_like(positions[:, 0])  # mechanical embedding: a vacuum
        field = torch.zeros_like(positions)
        if "potential" in inputs:
            potential = inputs["potential"]
            field = inputs["field"]
        return {"energy": self.module(positions, potential, field)}


class MLPotential(EvaluatedPotential):
    """A learned potential: a TorchScript module with its elements, embeddings, charges and states.

    Parameters
    ----------
    module : torch.nn.Module or torch.jit.ScriptModule
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

        The energy is differentiated by autograd, so every operation on positions, potential and field has to be
        differentiable. TorchForce freezes the module, which drops `detach`; use ``torch.no_grad`` instead. Energies
        are absolute if the potential is to be corrected by a QM term.
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

    Raises
    ------
    PotentialError
        If the module cannot be turned into TorchScript, or an argument has the wrong type, is out of range or does not
        go with another.
    """

    level = "ML"

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        elements: Iterable[int | str] | None = None,
        atomic_numbers: Iterable[int | str] | None = None,
        embeddings: Iterable[str] = ("mechanical",),
        charge: int | None = 0,
        multiplicity: int | None = 1,
        conditions: Iterable[tuple[int, int, int]] | None = None,
        state: int = 0,
    ) -> None:
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
        self.module = _scripted(module)
        if "electrostatic" in self.embeddings and _argument_names(module) == ["positions"]:
            raise PotentialError(
                "a module with forward(positions) does not feel the surroundings: use embeddings=['mechanical'], or "
                "give it the form forward(positions, potential, field)"
            )

    def fingerprint(self) -> str:
        """Return a hash of the model's code and numbers, the same for the same model in every process."""
        digest = hashlib.sha256(self.module.code.encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        state = f", state={self.state}" if self.state else ""
        return f"MLPotential(elements={sorted(self.elements)}, fingerprint={self.fingerprint()!r}{state})"

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

        if self.module.original_name != RecordedNetwork.__name__:
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
        return ModuleEvaluator(specification, self.module, self.state)

    def _settings(self) -> dict[str, Any]:
        """Return all arguments but the module, as JSON values."""
        return {
            "elements": None if self.atomic_numbers is not None else sorted(self.elements),
            "atomic_numbers": self.atomic_numbers,
            "embeddings": sorted(self.embeddings),
            "charge": self.charge,
            "multiplicity": self.multiplicity,
            "conditions": self.conditions,
            "state": self.state,
        }

    def __reduce__(self) -> tuple[object, ...]:
        buffer = io.BytesIO()
        torch.jit.save(self.module, buffer)
        return (_restore, (buffer.getvalue(), self._settings()))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a TorchScript archive for `load` and `torch.jit.load`."""
        metadata = {
            "format_version": FORMAT_VERSION,
            **self._settings(),
            "units": "atomic units: bohr, hartree, e",
        }
        target = Path(path)
        temporary = target.with_name(target.name + ".part")
        torch.jit.save(self.module, str(temporary), _extra_files={METADATA_FILE: json.dumps(metadata)})
        temporary.replace(target)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, state: int | None = None) -> MLPotential:
        """Read a model file.

        Only TorchScript archives are read, never pickled Python objects: a model file cannot run Python code.

        Parameters
        ----------
        path : path
        state : int, optional
            Electronic state, if not the one that the file was saved with.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        PotentialError
            If it is not a model that `save` wrote.
        """
        source = Path(path)
        if not source.is_file():
            raise FileNotFoundError(f"no model file {str(source)!r}; the working directory is {os.getcwd()!r}")
        advice = "write model files with MLPotential(module, ...).save(path)"
        if not zipfile.is_zipfile(source):
            raise PotentialError(f"{str(source)!r} is not a TorchScript archive; {advice}")
        with zipfile.ZipFile(source) as archive:
            names = archive.namelist()
        if not any(name.endswith("/constants.pkl") for name in names):
            raise PotentialError(
                f"{str(source)!r} is not a TorchScript archive but looks like a pickle of torch.save, which could run "
                f"any code and is not read; {advice}"
            )
        if not any(name.endswith(f"/extra/{METADATA_FILE}") for name in names):
            raise PotentialError(
                f"{str(source)!r} is TorchScript without elements, embedding and units; wrap "
                f"it: MLPotential(torch.jit.load(path), elements=[...]).save(path)"
            )
        extra = {METADATA_FILE: ""}
        try:
            module = torch.jit.load(str(source), map_location="cpu", _extra_files=extra)
        except RuntimeError as error:
            raise PotentialError(f"{str(source)!r} cannot be read by torch {torch.__version__}: {error}") from error
        try:
            metadata: Mapping[str, object] = json.loads(extra[METADATA_FILE])
        except ValueError:
            metadata = {}
        version = metadata.get("format_version") if isinstance(metadata, dict) else None
        if version != FORMAT_VERSION:
            raise PotentialError(
                f"{str(source)!r} has the format version {version}, this qmmlmm reads {FORMAT_VERSION}; train it again "
                "with 'qmmlmm train', or save your own module again with MLPotential(module, ...).save(path)"
            )
        settings = {name: metadata[name] for name in SETTINGS if name in metadata}
        if len(settings) < len(SETTINGS):
            raise PotentialError(
                f"{str(source)!r} has metadata without {listed(sorted(set(SETTINGS) - set(settings)))}; save the model "
                "again"
            )
        if state is not None:
            settings["state"] = state
        return cls(module, **cast(dict[str, Any], settings))


def _restore(archive: bytes, settings: dict[str, Any]) -> MLPotential:
    return MLPotential(torch.jit.load(io.BytesIO(archive), map_location="cpu"), **settings)


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


def _argument_names(module: torch.nn.Module) -> list[str]:
    if isinstance(module, torch.jit.ScriptModule):
        return [a.name for a in cast(Any, module).forward.schema.arguments if a.name != "self"]
    code = type(module).forward.__code__
    return list(code.co_varnames[1 : code.co_argcount])


def _scripted(module: torch.nn.Module) -> torch.jit.ScriptModule:
    if not isinstance(module, torch.nn.Module):
        raise PotentialError(f"an ML potential wraps a torch.nn.Module, got {type(module).__name__}")
    names = _argument_names(module)
    if names == ["positions"]:
        module = _FromPositions(module)
    elif names == ["positions", "potential", "field"]:
        module = _FromPositionsAndField(module)
    elif names != ["inputs"]:
        raise PotentialError(
            "forward of an ML module takes (positions), (positions, potential, field) or (inputs), "
            f"this one takes ({listed(names)})"
        )
    if isinstance(module, ResponseNetwork):
        module = RecordedNetwork(module)
    with torch.no_grad():  # else copies of a ScriptModule's parameters are no leaves
        module = copy.deepcopy(module).eval()  # the user's module remains trainable
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    if isinstance(module, torch.jit.ScriptModule):
        return module
    try:
        return torch.jit.script(module)
    except Exception as error:
        raise PotentialError(
            f"the module cannot be turned into TorchScript: {error}; potentials that need Python run through "
            "OpenMMMLPotential or your own EvaluatedPotential"
        ) from error
