"""The restricted reader of foreign files: tensors and plain data out of pickles and archives, never code."""

from pags.checkpoints.contents import leaves, tensors_in
from pags.checkpoints.opaque import Opaque
from pags.checkpoints.reader import read
from pags.checkpoints.state_dicts import State, state_dict_in

__all__ = ["Opaque", "State", "leaves", "read", "state_dict_in", "tensors_in"]
