"""The restricted reader of foreign files: tensors and plain data out of pickles and archives, never code."""

from pags.checkpoints.contents import leaves, state_dict_in, tensors_in
from pags.checkpoints.opaque import Opaque
from pags.checkpoints.reader import read

__all__ = ["Opaque", "leaves", "read", "state_dict_in", "tensors_in"]
