"""The device of a training."""

from __future__ import annotations

import torch

from qmmlmm.errors import SettingError


def check_device(device: object) -> torch.device:
    """Return a device of torch that is there.

    Parameters
    ----------
    device : str or torch.device
        Such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    Raises
    ------
    SettingError
        If it is no device, or this machine has no such device.
    """
    advice = "devices are 'cpu', and 'cuda' or 'cuda:N' with a GPU that torch supports"
    if not isinstance(device, str | torch.device):
        raise SettingError(f"device is a text or a torch.device, got {device!r}; {advice}")
    try:
        found = torch.device(device)
        # Only an allocation shows whether the device works.
        torch.zeros(1, device=found).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingError(f"device {str(device)!r} cannot be used here ({reason:.200}); {advice}") from error
    return found
