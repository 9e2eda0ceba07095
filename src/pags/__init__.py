"""pags: are a classifier's input gradients perceptually aligned, and why?

The public names, in reading order. They are loaded when first used, so that `import pags` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pags.arrays import project as project
    from pags.arrays import split as split
    from pags.auditing import Audit as Audit
    from pags.auditing import audit as audit
    from pags.auditing import compare as compare
    from pags.classifiers.about import describe as describe
    from pags.classifiers.build import build_classifier as build_classifier
    from pags.classifiers.check import check_classifier as check_classifier
    from pags.classifiers.load import load_classifier as load_classifier
    from pags.classifiers.modes import correct as correct
    from pags.classifiers.resnet import build_resnet as build_resnet
    from pags.data.distractor import distractor_set as distractor_set
    from pags.data.folders import images_of as images_of
    from pags.data.imageset import DataSet as DataSet
    from pags.data.imageset import ImageSet as ImageSet
    from pags.data.prepare import prepare_imagenet64 as prepare_imagenet64
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
    from pags.experiments.reproduce import reproduce as reproduce
    from pags.experiments.scales import settings_for as settings_for
    from pags.experiments.training import train as train
    from pags.experiments.training_settings import TrainSettings as TrainSettings
    from pags.generate import denoise as denoise
    from pags.generate import inpaint as inpaint
    from pags.generate import super_resolve as super_resolve
    from pags.generate import synthesise as synthesise
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
    from pags.measure.distractor import energy_on_signal as energy_on_signal
    from pags.measure.distractor import relative_noise_robustness as relative_noise_robustness
    from pags.measure.gradients import input_gradient as input_gradient
    from pags.measure.gradients import smooth_gradient as smooth_gradient
    from pags.measure.lpips import LPIPS as LPIPS
    from pags.measure.metrics import find_metric as find_metric
    from pags.measure.metrics import metric_of as metric_of
    from pags.measure.robustness import definition_1 as definition_1
    from pags.measure.robustness import equal_norm as equal_norm
    from pags.measure.robustness import off_manifold_share as off_manifold_share
    from pags.measure.statistics import mean_intervals as mean_intervals
    from pags.report.page import write_report as write_report
    from pags.score.denoiser import Denoiser as Denoiser
    from pags.score.denoiser import score_of as score_of
    from pags.score.exact import IdealDenoiser as IdealDenoiser
    from pags.score.load import load_denoiser as load_denoiser
    from pags.score.unet import Denoising as Denoising
    from pags.score.unet import UNetDenoiser as UNetDenoiser
    from pags.seeds import generator as generator
    from pags.store import Store as Store
    from pags.theory import run_theory as run_theory
    from pags.training.attack import PGD as PGD
    from pags.training.attack import robust_correct as robust_correct
    from pags.training.controls import GradientAlignment as GradientAlignment
    from pags.training.controls import PartialGradientNorm as PartialGradientNorm
    from pags.training.fit import Plan as Plan
    from pags.training.fit import fit as fit
    from pags.training.objectives import Objective as Objective
    from pags.training.objectives import make_objective as make_objective
    from pags.training.parallel import make_fabric as make_fabric
    from pags.training.recipes import read_recipe as read_recipe
    from pags.training.smoothed import certify as certify
    from pags.training.smoothed import smoothed_predict as smoothed_predict

_ROOM_OF = {
    # images in [0, 1] with labels, and named draws
    "ImageSet": "data.imageset", "DataSet": "data.imageset", "load": "data.sources", "generator": "seeds",
    "images_of": "data.folders", "distractor_set": "data.distractor", "prepare_imagenet64": "data.prepare",
    # worlds where everything is known
    "World": "data.worlds", "linear_world": "data.worlds", "mixture_world": "data.worlds",
    "curved_world": "data.worlds", "distractor_world": "data.worlds", "Bayes": "data.worlds",
    # classifiers and their robust training
    "load_classifier": "classifiers.load", "check_classifier": "classifiers.check",
    "describe": "classifiers.about", "build_classifier": "classifiers.build",
    "build_resnet": "classifiers.resnet", "correct": "classifiers.modes", "PGD": "training.attack",
    "robust_correct": "training.attack", "Objective": "training.objectives",
    "make_objective": "training.objectives", "Plan": "training.fit", "fit": "training.fit",
    "make_fabric": "training.parallel",
    "PartialGradientNorm": "training.controls", "GradientAlignment": "training.controls",
    "read_recipe": "training.recipes", "certify": "training.smoothed",
    "smoothed_predict": "training.smoothed",
    # the manifold and the score
    "Autoencoder": "manifold.autoencoder", "Reconstruction": "manifold.autoencoder",
    "decoder_tangent": "manifold.tangent", "DecoderTangent": "manifold.tangent",
    "LocalPCA": "manifold.estimators", "DenoiserTangent": "manifold.denoised",
    "principal_angles": "manifold.angles", "project_by_gram": "manifold.projection",
    "neighbour_dimension": "manifold.dimension", "spectral_dimension": "manifold.dimension",
    "Denoiser": "score.denoiser", "score_of": "score.denoiser", "load_denoiser": "score.load",
    "UNetDenoiser": "score.unet", "Denoising": "score.unet", "IdealDenoiser": "score.exact",
    # measures: one number an image; then averages
    "input_gradient": "measure.gradients", "smooth_gradient": "measure.gradients",
    "equal_norm": "measure.robustness", "definition_1": "measure.robustness",
    "off_manifold_share": "measure.robustness", "project": "arrays", "split": "arrays",
    "relative_noise_robustness": "measure.distractor", "energy_on_signal": "measure.distractor",
    "LPIPS": "measure.lpips", "Reference": "measure.alignment", "mean_intervals": "measure.statistics",
    "find_metric": "measure.metrics", "metric_of": "measure.metrics",
    # any classifier, all measures
    "audit": "auditing", "compare": "auditing", "Audit": "auditing",
    # following the gradient
    "synthesise": "generate", "denoise": "generate", "inpaint": "generate", "super_resolve": "generate",
    # whole experiments
    "TrainSettings": "experiments.training_settings", "train": "experiments.training",
    "SweepConfig": "experiments.config", "run_sweeps": "experiments.demo", "write_report": "report.page",
    "run_theory": "theory", "settings_for": "experiments.scales",
    "reproduce": "experiments.reproduce", "Store": "store",
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
