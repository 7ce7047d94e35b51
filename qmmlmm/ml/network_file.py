"""Files of networks: architecture and settings as JSON, weights as numbers, no code."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import torch

from qmmlmm.coupling.level_of_theory import Difference
from qmmlmm.errors import PotentialError
from qmmlmm.ml.model_file import ModelFile, read_model_file, setting_of, write_model_file
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def save_network(model: ResponseNetwork, path: str | os.PathLike[str]) -> None:
    """Write a network to a file, which is complete or not written at all.

    `qmmlmm.MLPotential.load` reads the file, too.

    Parameters
    ----------
    model : ResponseNetwork
    path : path

    Raises
    ------
    PotentialError
        If the file cannot be written.
    """
    write_model_file(path, ModelFile({"network": network_settings(model)}, weights=network_weights(model)))


def save_response(model: ResponseNetwork, path: str | os.PathLike[str]) -> None:
    """Write a network of the response alone to a file with numbers and no code, which says its units.

    Parameters
    ----------
    model : ResponseNetwork
    path : path

    Raises
    ------
    PotentialError
        If the file cannot be written.
    """
    settings = {"network": network_settings(model), "units": "atomic units: bohr, hartree, e"}
    write_model_file(path, ModelFile(settings, weights=network_weights(model)))


def load_network(path: str | os.PathLike[str]) -> ResponseNetwork:
    """Return the network of a file by `save_network` or `MLPotential.save`, in evaluation mode.

    The file cannot run code.

    Parameters
    ----------
    path : path

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PotentialError
        If it is damaged, of another format version, or has no network.
    """
    return network_of(read_model_file(path), path)


def network_of(content: ModelFile, source: str | os.PathLike[str]) -> ResponseNetwork:
    """Return the network in a model file.

    Parameters
    ----------
    content : ModelFile
    source : path
        Path of the file, for messages.

    Raises
    ------
    PotentialError
        If there is none, or settings and weights do not fit together.
    """
    if content.weights is None:
        raise PotentialError(
            f"{os.fspath(source)!r} has a module of its author's own and no network; read it with MLPotential.load"
        )
    settings = setting_of(content, "network", source)
    try:
        return create_network(cast(dict[str, object], settings), content.weights)
    # Wrong settings in a file with right checksums: KeyError, TypeError and many others.
    except Exception as error:
        raise PotentialError(f"{os.fspath(source)!r} has no network that this qmmlmm can read: {error!r}") from error


def network_settings(model: ResponseNetwork) -> dict[str, object]:
    """Return what makes a network, without its weights, as JSON values."""
    difference = {} if model.difference is None else {"difference": model.difference.as_json()}
    response_only = {"response_only": True} if model.response_only else {}
    elements = {"elements": list(model.elements)} if model.is_general else {}
    return {
        **difference,
        **response_only,
        **elements,
        "atomic_numbers": list(model.atomic_numbers),
        "bonds": [list(bond) for bond in model.bonds],
        "settings": asdict(model.settings),
        "conditions": [list(condition) for condition in model.known_conditions()],
        "members": model.members,
        "precision": str(model.embedding.dtype).removeprefix("torch."),
    }


def network_weights(model: ResponseNetwork) -> bytes:
    """Return the weights and other numbers of a network, for `create_network`."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.getvalue()


def network_checksum(model: ResponseNetwork) -> str:
    """Return the SHA-256 of settings and weights of a network."""
    digest = hashlib.sha256(json.dumps(network_settings(model), sort_keys=True).encode())
    add_numbers(digest, model.state_dict())
    return digest.hexdigest()


def add_numbers(digest: hashlib._Hash, numbers: Mapping[str, torch.Tensor]) -> None:
    """Add named tensors to a checksum, which does not depend on their order and device."""
    for name, tensor in sorted(numbers.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())


def create_network(settings: Mapping[str, object], weights: bytes) -> ResponseNetwork:
    """Return the network of `network_settings` and `network_weights`, in evaluation mode."""
    given = cast(dict[str, Any], settings)
    with torch.random.fork_rng(devices=[]):
        model = ResponseNetwork(
            given["atomic_numbers"],
            [(a, b) for a, b in given["bonds"]],
            ResponseSettings(**given["settings"]),
            [(c, m, s) for c, m, s in given["conditions"]],
            given["members"],
            PRECISIONS[given["precision"]],
            Difference.from_json(given["difference"]) if "difference" in given else None,
            given.get("response_only", False),
            given.get("elements"),
        )
    model.load_state_dict(torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True))
    return model.eval()
