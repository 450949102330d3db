"""Extension interface: every name that a plug-in, a case or a guide may import.

Versions follow these names and those of ``unlearnkit``: what is elsewhere may change at any time.
A file inside the library imports each name from the module where it is defined, since this module
is above them all.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unlearnkit.attribution.attributed_model import AttributedModel as AttributedModel
    from unlearnkit.attribution.back_ends import predict_shift as predict_shift
    from unlearnkit.attribution.blended import BlendedAttribution as BlendedAttribution
    from unlearnkit.attribution.datamodel import DatamodelAttribution as DatamodelAttribution
    from unlearnkit.attribution.influence import EkFacAttribution as EkFacAttribution
    from unlearnkit.attribution.leave_out_models import OracleAttribution as OracleAttribution
    from unlearnkit.attribution.linear_head import LinearHeadAttribution as LinearHeadAttribution
    from unlearnkit.attribution.predicted_shift import PredictedShift as PredictedShift
    from unlearnkit.attribution.shift_quality import ShiftQuality as ShiftQuality
    from unlearnkit.attribution.shift_quality import shift_quality as shift_quality
    from unlearnkit.attribution.trak import TrakAttribution as TrakAttribution
    from unlearnkit.cases.forget_sets import mislabelled as mislabelled
    from unlearnkit.cases.forget_sets import part_of_classes as part_of_classes
    from unlearnkit.cases.forget_sets import random_share as random_share
    from unlearnkit.cases.forget_sets import rows_by_rank as rows_by_rank
    from unlearnkit.cases.forget_sets import sub_class as sub_class
    from unlearnkit.cases.hard_forget_sets import entangled as entangled
    from unlearnkit.cases.hard_forget_sets import memorised as memorised
    from unlearnkit.cases.hard_forget_sets import worst as worst
    from unlearnkit.cases.registry import CaseEntry as CaseEntry
    from unlearnkit.cases.registry import CaseWithRequest as CaseWithRequest
    from unlearnkit.cases.registry import ModelSelectedRequest as ModelSelectedRequest
    from unlearnkit.cases.registry import builtin as builtin
    from unlearnkit.cases.tampered_sets import backdoor as backdoor
    from unlearnkit.cases.tampered_sets import known_part as known_part
    from unlearnkit.cases.tampered_sets import swap_labels as swap_labels
    from unlearnkit.core.canary import Canary as Canary
    from unlearnkit.core.case import Case as Case
    from unlearnkit.core.case import Partition as Partition
    from unlearnkit.core.data import Batch as Batch
    from unlearnkit.core.data import Data as Data
    from unlearnkit.core.data import TensorData as TensorData
    from unlearnkit.core.data import View as View
    from unlearnkit.core.errors import DivergedError as DivergedError
    from unlearnkit.core.errors import InputError as InputError
    from unlearnkit.core.errors import NoTargetsError as NoTargetsError
    from unlearnkit.core.errors import UndeclaredReadError as UndeclaredReadError
    from unlearnkit.core.errors import UnknownNameError as UnknownNameError
    from unlearnkit.core.errors import UnlearnkitError as UnlearnkitError
    from unlearnkit.core.errors import UnsupportedError as UnsupportedError
    from unlearnkit.core.evidence import Evidence as Evidence
    from unlearnkit.core.evidence import ModelRole as ModelRole
    from unlearnkit.core.evidence import Split as Split
    from unlearnkit.core.method import Info as Info
    from unlearnkit.core.method import Method as Method
    from unlearnkit.core.method import Need as Need
    from unlearnkit.core.method import Problem as Problem
    from unlearnkit.core.method import Recalibrated as Recalibrated
    from unlearnkit.core.method import register as register
    from unlearnkit.core.metric import Goal as Goal
    from unlearnkit.core.metric import MetricRole as MetricRole
    from unlearnkit.core.metric import Score as Score
    from unlearnkit.core.metric import mean as mean
    from unlearnkit.core.metric import metric as metric
    from unlearnkit.core.recipe import FineTuneSchedule as FineTuneSchedule
    from unlearnkit.core.recipe import Recipe as Recipe
    from unlearnkit.core.request import Classes as Classes
    from unlearnkit.core.request import ForgetRequest as ForgetRequest
    from unlearnkit.core.request import Groups as Groups
    from unlearnkit.core.request import Rows as Rows
    from unlearnkit.core.request import Targets as Targets
    from unlearnkit.core.runtime import Cost as Cost
    from unlearnkit.core.runtime import Reporter as Reporter
    from unlearnkit.core.runtime import Runtime as Runtime
    from unlearnkit.core.search_space import Categorical as Categorical
    from unlearnkit.core.search_space import SearchRange as SearchRange
    from unlearnkit.core.task import Task as Task
    from unlearnkit.core.task import register_task as register_task
    from unlearnkit.difficulty.memorization import leave_out as leave_out
    from unlearnkit.linalg.conjugate_gradient import LinearSolution as LinearSolution
    from unlearnkit.linalg.conjugate_gradient import conjugate_gradient as conjugate_gradient
    from unlearnkit.linalg.curvature_products import curvature_matrix as curvature_matrix
    from unlearnkit.linalg.curvature_products import curvature_product as curvature_product
    from unlearnkit.linalg.ekfac import EkFac as EkFac
    from unlearnkit.linalg.fisher import squared_gradients as squared_gradients
    from unlearnkit.localize.localizer import Localizer as Localizer
    from unlearnkit.localize.mask import Mask as Mask
    from unlearnkit.tasks.classification import Classification as Classification
    from unlearnkit.tasks.multilabel import MultiLabel as MultiLabel
    from unlearnkit.tasks.regression import Regression as Regression
    from unlearnkit.train.features import features as features
    from unlearnkit.train.features import row_losses as row_losses
    from unlearnkit.train.loop import alternate as alternate
    from unlearnkit.train.loop import descend as descend
    from unlearnkit.train.loop import fit as fit
    from unlearnkit.train.loop import training as training
    from unlearnkit.train.output_matching import OutputMatching as OutputMatching
    from unlearnkit.train.output_matching import match_outputs as match_outputs
    from unlearnkit.train.schedule import LossTerms as LossTerms
    from unlearnkit.train.schedule import StepExtras as StepExtras
    from unlearnkit.train.schedule import WarmRestart as WarmRestart
    from unlearnkit.train.schedule import run_schedule as run_schedule

_HOMES = {
    "AttributedModel": "attribution.attributed_model",
    "Batch": "core.data",
    "BlendedAttribution": "attribution.blended",
    "Canary": "core.canary",
    "Case": "core.case",
    "CaseEntry": "cases.registry",
    "CaseWithRequest": "cases.registry",
    "Categorical": "core.search_space",
    "Classes": "core.request",
    "Classification": "tasks.classification",
    "Cost": "core.runtime",
    "Data": "core.data",
    "DatamodelAttribution": "attribution.datamodel",
    "DivergedError": "core.errors",
    "EkFac": "linalg.ekfac",
    "EkFacAttribution": "attribution.influence",
    "Evidence": "core.evidence",
    "FineTuneSchedule": "core.recipe",
    "ForgetRequest": "core.request",
    "Goal": "core.metric",
    "Groups": "core.request",
    "Info": "core.method",
    "InputError": "core.errors",
    "LinearHeadAttribution": "attribution.linear_head",
    "LinearSolution": "linalg.conjugate_gradient",
    "Localizer": "localize.localizer",
    "LossTerms": "train.schedule",
    "Mask": "localize.mask",
    "Method": "core.method",
    "MetricRole": "core.metric",
    "ModelRole": "core.evidence",
    "ModelSelectedRequest": "cases.registry",
    "MultiLabel": "tasks.multilabel",
    "Need": "core.method",
    "NoTargetsError": "core.errors",
    "OracleAttribution": "attribution.leave_out_models",
    "OutputMatching": "train.output_matching",
    "Partition": "core.case",
    "PredictedShift": "attribution.predicted_shift",
    "Problem": "core.method",
    "Recalibrated": "core.method",
    "Recipe": "core.recipe",
    "Regression": "tasks.regression",
    "Reporter": "core.runtime",
    "Rows": "core.request",
    "Runtime": "core.runtime",
    "Score": "core.metric",
    "SearchRange": "core.search_space",
    "ShiftQuality": "attribution.shift_quality",
    "Split": "core.evidence",
    "StepExtras": "train.schedule",
    "Targets": "core.request",
    "Task": "core.task",
    "TensorData": "core.data",
    "TrakAttribution": "attribution.trak",
    "UndeclaredReadError": "core.errors",
    "UnknownNameError": "core.errors",
    "UnlearnkitError": "core.errors",
    "UnsupportedError": "core.errors",
    "View": "core.data",
    "WarmRestart": "train.schedule",
    "alternate": "train.loop",
    "backdoor": "cases.tampered_sets",
    "builtin": "cases.registry",
    "conjugate_gradient": "linalg.conjugate_gradient",
    "curvature_matrix": "linalg.curvature_products",
    "curvature_product": "linalg.curvature_products",
    "descend": "train.loop",
    "entangled": "cases.hard_forget_sets",
    "features": "train.features",
    "fit": "train.loop",
    "known_part": "cases.tampered_sets",
    "leave_out": "difficulty.memorization",
    "match_outputs": "train.output_matching",
    "mean": "core.metric",
    "memorised": "cases.hard_forget_sets",
    "metric": "core.metric",
    "mislabelled": "cases.forget_sets",
    "part_of_classes": "cases.forget_sets",
    "predict_shift": "attribution.back_ends",
    "random_share": "cases.forget_sets",
    "register": "core.method",
    "register_task": "core.task",
    "row_losses": "train.features",
    "rows_by_rank": "cases.forget_sets",
    "run_schedule": "train.schedule",
    "shift_quality": "attribution.shift_quality",
    "squared_gradients": "linalg.fisher",
    "sub_class": "cases.forget_sets",
    "swap_labels": "cases.tampered_sets",
    "training": "train.loop",
    "worst": "cases.hard_forget_sets",
}
"""The module that defines each name; imported when the name is first read, to start quickly."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Case":  # a task may be given by its name
        importlib.import_module("unlearnkit.catalog").tasks()
    value: object = getattr(importlib.import_module(f"unlearnkit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOMES)
