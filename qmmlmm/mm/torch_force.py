"""Access to openmm-torch's TorchForce, for any order in which openmm and torch were imported."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from pathlib import Path

import openmm
import torch

SUPPORTED_TORCH = "2.9"
"""The version that the wheel ``openmmtorch`` 1.5 is linked against; with another one it crashes."""

SUPPORTED_OPENMM = "8.5"
"""With OpenMM 8.6, reading a serialised TorchForce crashes."""

_PLATFORM_LIBRARIES = ("Reference", "CUDA", "OpenCL", "HIP")


@functools.cache
def unavailable_because() -> str | None:
    """Return the reason why TorchForce cannot be used in this process, or None if it can.

    Notes
    -----
    OpenMM loads its plug-ins when it is imported. If torch was not loaded before, the plug-in's platform
    libraries did not find torch's libraries; this function loads them again.
    """
    version = torch.__version__.split("+")[0]
    if not version.startswith(SUPPORTED_TORCH + "."):
        return f"openmmtorch needs torch {SUPPORTED_TORCH}, this is torch {version}"
    installed = openmm.version.short_version
    if not installed.startswith(SUPPORTED_OPENMM + "."):
        return f"openmmtorch needs OpenMM {SUPPORTED_OPENMM}, this is OpenMM {installed}"
    try:
        # The module of the wheel imports simtk.openmm, which prints a deprecation note.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            import openmmtorch
    except (ImportError, OSError) as error:
        return f"openmmtorch cannot be imported: {error}"
    if not _probe(openmmtorch):
        extension = ".dylib" if sys.platform == "darwin" else ".so"
        folder = Path(openmm.version.openmm_library_path) / "plugins"
        for platform in _PLATFORM_LIBRARIES:
            library = folder / f"libOpenMMTorch{platform}{extension}"
            if library.exists():
                with contextlib.suppress(openmm.OpenMMException):
                    openmm.Platform.loadPluginLibrary(str(library))
        if not _probe(openmmtorch):
            return "the plug-in of openmmtorch was not loaded: " + "; ".join(
                failure for failure in openmm.Platform.getPluginLoadFailures() if "Torch" in failure
            )
    return None


class _Probe(torch.nn.Module):
    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return positions.sum()


def _probe(openmmtorch: object) -> bool:
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(openmmtorch.TorchForce(torch.jit.script(_Probe())))  # type: ignore[attr-defined]
    try:
        openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    except openmm.OpenMMException:
        return False
    return True


def create_torch_force(module: torch.jit.ScriptModule, periodic: bool) -> openmm.Force:
    """Return a TorchForce that runs a term.

    Parameters
    ----------
    module : torch.jit.ScriptModule
        Module from `qmmlmm.embedding.torch_term.script_term`.
    periodic : bool
        Whether the module gets box vectors.

    Notes
    -----
    Call it only if `unavailable_because` returns None. It switches TorchScript's fuser off for the whole process: on a
    GPU the fuser compiles kernels that cannot run ("Global alloc not supported yet").
    """
    import openmmtorch

    torch._C._jit_set_texpr_fuser_enabled(False)
    force = openmmtorch.TorchForce(module)
    force.setOutputsForces(True)
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force
