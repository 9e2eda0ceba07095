"""In which precision networks are trained: bfloat16 where the machine multiplies it faster."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["32-true", "bf16-mixed"]
AnyPrecision = Literal["auto", "32-true", "bf16-mixed"]
"""auto: see `choose_precision`; measuring is always in float32."""

CPU_FACTS = Path("/proc/cpuinfo")


def choose_precision(device: torch.device | str) -> Precision:
    """ "bf16-mixed" on CUDA and on CPUs with AMX tiles, which multiply bfloat16 several times faster;
    elsewhere "32-true"."""
    kind = torch.device(device).type
    fast = kind == "cuda" or (kind == "cpu" and has_amx())
    return "bf16-mixed" if fast else "32-true"


def decided(precision: AnyPrecision, device: torch.device | str) -> Precision:
    """The precision itself, where "auto" leaves it to the machine."""
    return choose_precision(device) if precision == "auto" else precision


@contextmanager
def exact_float32() -> Iterator[None]:
    """Products in float32 as they are, without TF32 on a GPU (torch's default for convolutions) or bfloat16
    on a CPU, whatever was set: what is measured are small differences of outputs."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)


def has_amx() -> bool:
    """Whether this CPU, and torch on it, multiplies bfloat16 matrices in AMX tiles."""
    asked = getattr(torch.cpu, "_is_amx_tile_supported", None)
    if asked is not None and not asked():
        return False
    return {"amx_tile", "amx_bf16"} <= cpu_flags(CPU_FACTS)


def cpu_flags(facts: Path) -> set[str]:
    """The features of the first processor that Linux lists in `facts`; none elsewhere."""
    try:
        lines = facts.read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
