"""The public names, in reading order."""

from .auditing.evaluation import EvaluationSet as EvaluationSet
from .auditing.measures import Measures as Measures
from .auditing.result import Audit as Audit
from .auditing.result import compare as compare
from .auditing.run import audit as audit
from .classifiers.build import new_classifier as new_classifier
from .classifiers.check import check_classifier as check_classifier
from .classifiers.load import load_classifier as load_classifier
from .data.imageset import DataSet as DataSet
from .data.imageset import ImageSet as ImageSet
from .data.sources import load_data as load_data
from .errors import PagsError as PagsError
from .errors import TrainingDiverged as TrainingDiverged
from .errors import UsageError as UsageError
from .experiments.audit import AuditSettings as AuditSettings
from .experiments.audit import run_audit as run_audit
from .experiments.settings import ExperimentSettings as ExperimentSettings
from .experiments.training import TrainSettings as TrainSettings
from .experiments.training import train as train
from .figures.reproduce import ReproduceSettings as ReproduceSettings
from .figures.reproduce import reproduce as reproduce
from .measure.gradients import Attribution as Attribution
from .measure.gradients import get_target as get_target
from .measure.gradients import input_gradient as input_gradient
from .measure.metrics import get_metric as get_metric
from .measure.metrics import make_metric as make_metric
from .report.pages import write_report as write_report
from .score.load import load_denoiser as load_denoiser
from .store import Store as Store
from .theory.run import run_theory as run_theory
from .training.fit import Plan as Plan
from .training.fit import epochs as epochs
from .training.fit import fit as fit
from .training.objectives import make_objective as make_objective

__version__: str
