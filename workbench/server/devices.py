"""Which execution provider a session gets: by what is asked for, what onnxruntime has and what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.server.errors import NotHere
from workbench.server.session import CPU

DEVICES = ("cpu", "cuda")
_CUDA = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Device:
    """What sessions are opened with, in the order of preference, and why."""

    providers: tuple[str, ...] = CPU
    reason: str = "cpu is what was asked for"
    fallback: bool = True
    """Whether a session that ends up without the first provider is served all the same."""

    def check(self, used: Sequence[str]) -> str:
        """What a session that got the providers ``used`` is to be said of; NotHere where that is refused.

        onnxruntime leaves a provider out, with a warning, where the machine has no driver or device for it.
        """
        if used and used[0] == self.providers[0]:
            return f"on {used[0]}: {self.reason}"
        if not self.fallback:
            raise NotHere(
                f"device is cuda, and onnxruntime found no usable GPU: it offers {', '.join(used)}.",
                "Start the container with --gpus all on a machine with the NVIDIA driver, or set "
                "WORKBENCH_DEVICE_FALLBACK=1 to serve from the CPU.",
            )
        return f"on {used[0] if used else 'nothing'}: {self.providers[0]} was asked for and is not usable here"


def choose(device: str, available: Sequence[str], *, fallback: bool) -> Device:
    """What serves ``device`` (cpu or cuda) from the providers that onnxruntime was built with.

    NotHere where cuda is asked for, this onnxruntime has none, and ``fallback`` to the CPU is not allowed.
    """
    if device == "cpu":
        return Device()
    if _CUDA in available:
        return Device((_CUDA, *CPU), "cuda is what was asked for, and onnxruntime has it", fallback)
    if fallback:
        return Device(CPU, "cuda was asked for, and this onnxruntime was built without it")
    raise NotHere(
        f"device is cuda, and this onnxruntime has only {', '.join(available)}.",
        "Use an image built with device: cuda, or set WORKBENCH_DEVICE_FALLBACK=1 to serve from the CPU.",
    )
