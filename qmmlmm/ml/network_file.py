"""Files of networks for further training: architecture, settings and weights."""

from __future__ import annotations

import io
import os
from dataclasses import asdict
from pathlib import Path

import torch

from qmmlmm.durable_files import replace_file
from qmmlmm.errors import PotentialError
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.ml.response_network import ResponseNetwork, ResponseSettings

NETWORK_VERSION = 4


def save_network(model: ResponseNetwork, path: str | os.PathLike[str]) -> None:
    """Write a network to a file, which is complete or not written at all.

    Parameters
    ----------
    model : ResponseNetwork
    path : path
    """
    buffer = io.BytesIO()
    torch.save(
        {
            "version": NETWORK_VERSION,
            "atomic_numbers": list(model.atomic_numbers),
            "bonds": [list(bond) for bond in model.bonds],
            "settings": asdict(model.settings),
            "conditions": [list(condition) for condition in model.known_conditions()],
            "members": model.members,
            "weights": model.state_dict(),
        },
        buffer,
    )
    replace_file(Path(path), buffer.getvalue())


def load_network(path: str | os.PathLike[str]) -> ResponseNetwork:
    """Return the network that `save_network` wrote, in evaluation mode. The file cannot run code.

    Parameters
    ----------
    path : path

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PotentialError
        If it is damaged, of another format version, or no network file.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no network file {str(source)!r}; the working directory is {os.getcwd()!r}")
    try:
        content = torch.load(source, weights_only=True)
        version = content["version"]
    except Exception as error:
        raise PotentialError(f"{str(source)!r} is no network file, or is damaged: {error}") from error
    if version != NETWORK_VERSION:
        raise PotentialError(
            f"{str(source)!r} has the format version {version}, this qmmlmm reads {NETWORK_VERSION}; train it again "
            "with 'qmmlmm train'"
        )
    with torch.random.fork_rng(devices=[]):
        model = ResponseNetwork(
            content["atomic_numbers"],
            [(a, b) for a, b in content["bonds"]],
            ResponseSettings(**content["settings"]),
            [(c, m, s) for c, m, s in content["conditions"]],
            content["members"],
        )
    model.load_state_dict(content["weights"])
    return model.eval()


def region_potential(model: ResponseNetwork) -> MLPotential:
    """Return a trained network as the potential of its region.

    Parameters
    ----------
    model : ResponseNetwork
        Trained network. The potential is valid for the charges, multiplicities and electronic states of its training;
        `MLPotential.load` takes the state.
    """
    conditions = model.known_conditions()
    return MLPotential(
        model,
        atomic_numbers=model.atomic_numbers,
        embeddings=["electrostatic", "mechanical"] if model.response else ["mechanical"],
        conditions=conditions,
        state=min(state for _, _, state in conditions),
    )
