"""pags: are a classifier's input gradients perceptually aligned, and why?

The public names, in reading order. They are loaded when first used, so that `import pags` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pags.arrays import project as project
    from pags.arrays import split as split
    from pags.classifiers.modes import correct as correct
    from pags.classifiers.resnet import build_resnet as build_resnet
    from pags.data.imageset import DataSet as DataSet
    from pags.data.imageset import ImageSet as ImageSet
    from pags.data.sources import load as load
    from pags.data.worlds import Bayes as Bayes
    from pags.data.worlds import World as World
    from pags.data.worlds import curved_world as curved_world
    from pags.data.worlds import distractor_world as distractor_world
    from pags.data.worlds import linear_world as linear_world
    from pags.data.worlds import mixture_world as mixture_world
    from pags.errors import PagsError as PagsError
    from pags.errors import TrainingDiverged as TrainingDiverged
    from pags.errors import UsageError as UsageError
    from pags.experiments.config import SweepConfig as SweepConfig
    from pags.experiments.demo import run_sweeps as run_sweeps
    from pags.experiments.theory import run_theory as run_theory
    from pags.manifold.angles import principal_angles as principal_angles
    from pags.manifold.autoencoder import Autoencoder as Autoencoder
    from pags.manifold.autoencoder import Reconstruction as Reconstruction
    from pags.manifold.denoised import DenoiserTangent as DenoiserTangent
    from pags.manifold.dimension import neighbour_dimension as neighbour_dimension
    from pags.manifold.dimension import spectral_dimension as spectral_dimension
    from pags.manifold.estimators import LocalPCA as LocalPCA
    from pags.manifold.projection import project_by_gram as project_by_gram
    from pags.manifold.tangent import DecoderTangent as DecoderTangent
    from pags.manifold.tangent import decoder_tangent as decoder_tangent
    from pags.measure.alignment import Reference as Reference
    from pags.measure.gradients import input_gradient as input_gradient
    from pags.measure.gradients import smooth_gradient as smooth_gradient
    from pags.measure.lpips import LPIPS as LPIPS
    from pags.measure.robustness import definition_1 as definition_1
    from pags.measure.robustness import equal_norm as equal_norm
    from pags.measure.robustness import off_manifold_share as off_manifold_share
    from pags.measure.statistics import mean_intervals as mean_intervals
    from pags.report.page import write_report as write_report
    from pags.score.denoiser import Denoiser as Denoiser
    from pags.score.denoiser import score_of as score_of
    from pags.score.exact import IdealDenoiser as IdealDenoiser
    from pags.score.unet import Denoising as Denoising
    from pags.score.unet import UNetDenoiser as UNetDenoiser
    from pags.seeds import generator as generator
    from pags.store import Store as Store
    from pags.training.attack import PGD as PGD
    from pags.training.attack import robust_correct as robust_correct
    from pags.training.controls import GradientAlignment as GradientAlignment
    from pags.training.controls import PartialGradientNorm as PartialGradientNorm
    from pags.training.fit import Plan as Plan
    from pags.training.fit import fit as fit
    from pags.training.objectives import Objective as Objective
    from pags.training.objectives import make_objective as make_objective

_ROOM_OF = {
    # images in [0, 1] with labels, and named draws
    "ImageSet": "data.imageset", "DataSet": "data.imageset", "load": "data.sources", "generator": "seeds",
    # worlds where everything is known
    "World": "data.worlds", "linear_world": "data.worlds", "mixture_world": "data.worlds",
    "curved_world": "data.worlds", "distractor_world": "data.worlds", "Bayes": "data.worlds",
    # classifiers and their robust training
    "build_resnet": "classifiers.resnet", "correct": "classifiers.modes", "PGD": "training.attack",
    "robust_correct": "training.attack", "Objective": "training.objectives",
    "make_objective": "training.objectives", "Plan": "training.fit", "fit": "training.fit",
    "PartialGradientNorm": "training.controls", "GradientAlignment": "training.controls",
    # the manifold and the score
    "Autoencoder": "manifold.autoencoder", "Reconstruction": "manifold.autoencoder",
    "decoder_tangent": "manifold.tangent", "DecoderTangent": "manifold.tangent",
    "LocalPCA": "manifold.estimators", "DenoiserTangent": "manifold.denoised",
    "principal_angles": "manifold.angles", "project_by_gram": "manifold.projection",
    "neighbour_dimension": "manifold.dimension", "spectral_dimension": "manifold.dimension",
    "Denoiser": "score.denoiser", "score_of": "score.denoiser",
    "UNetDenoiser": "score.unet", "Denoising": "score.unet", "IdealDenoiser": "score.exact",
    # measures: one number an image; then averages
    "input_gradient": "measure.gradients", "smooth_gradient": "measure.gradients",
    "equal_norm": "measure.robustness", "definition_1": "measure.robustness",
    "off_manifold_share": "measure.robustness", "project": "arrays", "split": "arrays",
    "LPIPS": "measure.lpips", "Reference": "measure.alignment", "mean_intervals": "measure.statistics",
    # whole experiments
    "SweepConfig": "experiments.config", "run_sweeps": "experiments.demo", "write_report": "report.page",
    "run_theory": "experiments.theory", "Store": "store",
    # errors
    "PagsError": "errors", "UsageError": "errors", "TrainingDiverged": "errors",
}  # fmt: skip

__all__ = ["__version__", *_ROOM_OF]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'pags' has no attribute {name!r}")
    return getattr(import_module(f"pags.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
