"""The names by which torch and numpy files call their tensors, as dtypes."""

import torch

STORAGES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
    "Untyped": torch.uint8, "_Untyped": torch.uint8,
}  # fmt: skip
"""By the first half of the class's name: `torch.FloatStorage` and the like."""

DTYPES = {
    f"torch.{str(dtype).removeprefix('torch.')}": dtype
    for dtype in (
        *(dtype for dtype in STORAGES.values() if dtype != torch.bool),
        torch.uint16, torch.uint32, torch.uint64,
        torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
    )
}  # fmt: skip
"""By the name under which torch pickles a dtype."""

NUMPY = {
    "b1": torch.bool, "i1": torch.int8, "i2": torch.int16, "i4": torch.int32, "i8": torch.int64,
    "u1": torch.uint8, "u2": torch.uint16, "u4": torch.uint32, "u8": torch.uint64,
    "f2": torch.float16, "f4": torch.float32, "f8": torch.float64,
    "c8": torch.complex64, "c16": torch.complex128,
}  # fmt: skip
"""By numpy's type string without the byte order; other kinds (texts, dates, objects) stay opaque."""


def storage_dtype(name: str) -> torch.dtype | None:
    """The element type of a storage class, such as "torch.cuda.HalfStorage"; None for an unknown class."""
    module, _, kind = name.rpartition(".")
    known = module in {"torch", "torch.cuda", "torch.storage"} and kind.endswith("Storage")
    return STORAGES.get(kind.removesuffix("Storage")) if known else None
