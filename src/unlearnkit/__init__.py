"""Make trained PyTorch models forget chosen training data, and measure honestly whether they did.

Four nouns: ``Case``, a request (``Rows``, ``Classes``, ``Groups``, ``Targets``, ``Features``,
``Labels``), ``Method``, ``Report``.
Three verbs: ``unlearn``, ``oracle``, ``audit``.
"""

import importlib
from typing import TYPE_CHECKING

from unlearnkit.core.version import __version__ as __version__

if TYPE_CHECKING:
    from unlearnkit import catalog as catalog
    from unlearnkit import linear as linear
    from unlearnkit.auditing.audit import audit as audit
    from unlearnkit.auditing.audit_memory import AuditMemory as AuditMemory
    from unlearnkit.auto.chooser import unlearn as unlearn
    from unlearnkit.auto.selection import AutoFailedError as AutoFailedError
    from unlearnkit.cache import Cache as Cache
    from unlearnkit.catalog import method as method
    from unlearnkit.checkpoint import load_weights as load_weights
    from unlearnkit.checkpoint import save_weights as save_weights
    from unlearnkit.core.arrow_rows import parquet_rows as parquet_rows
    from unlearnkit.core.auto_method import Auto as Auto
    from unlearnkit.core.case import Case as Case
    from unlearnkit.core.documents import Documents as Documents
    from unlearnkit.core.errors import UnlearnkitError as UnlearnkitError
    from unlearnkit.core.method import Method as Method
    from unlearnkit.core.recipe import Recipe as Recipe
    from unlearnkit.core.request import Classes as Classes
    from unlearnkit.core.request import Features as Features
    from unlearnkit.core.request import Groups as Groups
    from unlearnkit.core.request import Labels as Labels
    from unlearnkit.core.request import Rows as Rows
    from unlearnkit.core.request import Targets as Targets
    from unlearnkit.core.runtime import Runtime as Runtime
    from unlearnkit.linalg.gradient_projection import RetainedSubspace as RetainedSubspace
    from unlearnkit.linalg.input_moments import InputMoments as InputMoments
    from unlearnkit.localize.localizer import Localizer as Localizer
    from unlearnkit.localize.mask import Mask as Mask
    from unlearnkit.oracles import Oracles as Oracles
    from unlearnkit.oracles import oracle as oracle
    from unlearnkit.oracles import train_original as train_original
    from unlearnkit.report.report import Report as Report
    from unlearnkit.tasks.causal_lm import CausalLM as CausalLM
    from unlearnkit.tasks.classification import Classification as Classification
    from unlearnkit.tasks.masked_lm import MaskedLM as MaskedLM
    from unlearnkit.tasks.multilabel import MultiLabel as MultiLabel
    from unlearnkit.tasks.regression import Regression as Regression
    from unlearnkit.tasks.seq2seq import Seq2SeqLM as Seq2SeqLM
    from unlearnkit.train.checkpoint_history import DiskCheckpoints as DiskCheckpoints
    from unlearnkit.train.checkpoint_history import MemoryCheckpoints as MemoryCheckpoints
    from unlearnkit.train.checkpointed_training import with_checkpoints as with_checkpoints
    from unlearnkit.unlearning.requirements import applicable_methods as applicable_methods
    from unlearnkit.unlearning.run_method import Unlearned as Unlearned

_HOMES = {
    "AuditMemory": "auditing.audit_memory",
    "Auto": "core.auto_method",
    "AutoFailedError": "auto.selection",
    "Cache": "cache",
    "Case": "core.case",
    "CausalLM": "tasks.causal_lm",
    "Classes": "core.request",
    "Classification": "tasks.classification",
    "DiskCheckpoints": "train.checkpoint_history",
    "Documents": "core.documents",
    "Features": "core.request",
    "Groups": "core.request",
    "InputMoments": "linalg.input_moments",
    "Labels": "core.request",
    "Localizer": "localize.localizer",
    "Mask": "localize.mask",
    "MaskedLM": "tasks.masked_lm",
    "MemoryCheckpoints": "train.checkpoint_history",
    "Method": "core.method",
    "MultiLabel": "tasks.multilabel",
    "Oracles": "oracles",
    "Recipe": "core.recipe",
    "Regression": "tasks.regression",
    "Report": "report.report",
    "RetainedSubspace": "linalg.gradient_projection",
    "Rows": "core.request",
    "Runtime": "core.runtime",
    "Seq2SeqLM": "tasks.seq2seq",
    "Targets": "core.request",
    "Unlearned": "unlearning.run_method",
    "UnlearnkitError": "core.errors",
    "applicable_methods": "unlearning.requirements",
    "audit": "auditing.audit",
    "catalog": "catalog",
    "linear": "linear",
    "load_weights": "checkpoint",
    "method": "catalog",
    "oracle": "oracles",
    "parquet_rows": "core.arrow_rows",
    "save_weights": "checkpoint",
    "train_original": "oracles",
    "unlearn": "auto.chooser",
    "with_checkpoints": "train.checkpointed_training",
}
"""Where each public name lives; imported when it is first used: ``--help`` stays quick."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "linear":
        return importlib.import_module(f"{__name__}.linear")
    catalog = importlib.import_module(f"{__name__}.catalog")
    catalog.tasks()
    if name == "catalog":
        return catalog
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
