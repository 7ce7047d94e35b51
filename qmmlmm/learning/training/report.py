"""The report of a training: a figure and a short Markdown page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from qmmlmm.analysis.model_quality import plot_calibration, plot_learning_curve, plot_parity, report_figure
from qmmlmm.errors import listed
from qmmlmm.learning.labels.labelled_frame import LabelledFrame
from qmmlmm.learning.training.accuracy import Accuracy, accuracy
from qmmlmm.learning.training.frame_tensors import frame_tensors
from qmmlmm.learning.training.prediction import predict
from qmmlmm.learning.training.trainer import TrainedModel
from qmmlmm.learning.training.training_settings import TrainingSettings
from qmmlmm.learning.training.uncertainty import force_uncertainty
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.runs.report.markdown_page import write_markdown_page
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL


def write_report(
    directory: Path,
    trained: TrainedModel,
    test: list[LabelledFrame],
    *,
    training_names: Sequence[str],
    settings: TrainingSettings,
    network: ResponseSettings,
    unseen: bool,
    learning_curve: Sequence[tuple[int, Accuracy]] = (),
) -> Path:
    """Write ``report.md``, ``report.png`` and both in ``report.html``; return the path of the first.

    Parameters
    ----------
    directory : Path
    trained : TrainedModel
    test : list of LabelledFrame
    training_names : sequence of str
        Names of the training frames.
    settings : TrainingSettings
    network : ResponseSettings
    unseen : bool
        Whether the test frames had no part in the training. Validation frames have a part: they decide when it stops.
    learning_curve : sequence of (int, Accuracy)
        Numbers of frames, and errors on the test frames.
    """
    model = trained.model
    data = frame_tensors(test, model.known_conditions())
    predicted = predict(model, data)
    result = accuracy(predicted, data)
    committee = model.members > 1
    figure, axes = report_figure(2 + committee + bool(learning_curve))
    mean = data.energy.mean()
    plot_parity(
        ((data.energy - mean) * HARTREE_IN_KJ_PER_MOL).numpy(),
        ((predicted.energy.detach().mean(0) - mean) * HARTREE_IN_KJ_PER_MOL).numpy(),
        "energy, kJ/mol",
        axes[0],
    )
    plot_parity(
        data.forces.numpy() * FORCE_AU_IN_OPENMM,
        predicted.forces.detach().mean(0).numpy() * FORCE_AU_IN_OPENMM,
        "forces, kJ/(mol nm)",
        axes[1],
    )
    lines = [
        "# Training report",
        "",
        f"{len(training_names)} training frames, labelled with {test[0].method}; "
        f"{len(test)} {'test' if unseen else 'validation'} frames. Errors are mean absolute errors, and root mean "
        "square errors for forces on near charges.",
        "",
        "| frames | energy | forces | energy in vacuum | forces in vacuum | forces on near charges | energy shift |",
        "|---|---|---|---|---|---|---|",
        _row("test" if unseen else "validation", result),
    ]
    if unseen:
        lines.append(_row("validation", trained.validation))
    lines += ["", "Energies in kJ/mol without their mean error, the energy shift; forces in kJ/(mol nm)."]
    if committee:
        uncertainty = force_uncertainty(predicted, data)
        scale = float(model.uncertainty_scale)
        plot_calibration(uncertainty.atom_spread.ravel(), uncertainty.atom_error.ravel(), scale, axes[2])
        lines += [
            "",
            f"Committee of {model.members}: spread of the forces times {scale:.2f} (from the validation frames; the "
            f"value for these frames is {uncertainty.scale():.2f}); correlation with the true error "
            f"{uncertainty.correlation('frame'):.2f} per frame and {uncertainty.correlation('atom'):.2f} per atom.",
        ]
    if learning_curve:
        sizes = [size for size, _ in learning_curve]
        errors = torch.tensor([found.forces for _, found in learning_curve]).numpy()
        plot_learning_curve(sizes, errors, "mean absolute error of forces, kJ/(mol nm)", axes[-1])
        lines += ["", "| frames trained on | energy | forces |", "|---|---|---|"]
        lines += [f"| {size} | {found.energy:.2f} | {found.forces:.1f} |" for size, found in learning_curve]
    lines += [
        "",
        "![parity](report.png)",
        "",
        f"Network: {_settings(asdict(network))}. Training: {_settings(asdict(settings))}. Steps: "
        f"{int(trained.history[-1]['step']) if trained.history else 0}.",
        "",
        f"Trained on: {listed(training_names, 1000)}.",
        "",
    ]
    figure.savefig(directory / "report.png", dpi=150)
    path = directory / "report.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    write_markdown_page(path)
    return path


def _row(name: str, found: Accuracy) -> str:
    values = [
        f"{found.energy:.2f}", f"{found.forces:.1f}", f"{found.vacuum_energy:.2f}", f"{found.vacuum_forces:.1f}",
        f"{found.near_forces:.1f}", f"{found.energy_shift:.2f}",
    ]  # fmt: skip
    return f"| {name} | " + " | ".join("-" if value == "nan" else value for value in values) + " |"


def _settings(values: dict[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
