"""The exact laboratory: what the paper proves or argues, measured where the truth is known."""

from pags.theory.argument_1 import argument_1
from pags.theory.argument_2 import argument_2
from pags.theory.run import run_theory
from pags.theory.theorem_1 import Subject, theorem_1
from pags.theory.theorem_2 import theorem_2
from pags.theory.two_layer import two_layer

__all__ = ["Subject", "argument_1", "argument_2", "run_theory", "theorem_1", "theorem_2", "two_layer"]
