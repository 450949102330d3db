"""Hugging Face: a ``transformers.Trainer`` whose loss is an unlearning method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from unlearnkit.catalog import method as build_method
from unlearnkit.catalog import tasks
from unlearnkit.core.case import Case
from unlearnkit.core.data import Batch, TensorData, View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.method import Method, Problem
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.language.adapters import LowRankAdapter, adapter_note, add_adapter
from unlearnkit.language.language_method import (
    ForgetStep,
    LanguageMethod,
    ReferenceModel,
    TokenModel,
    language_task,
)
from unlearnkit.unlearning.run_method import reading_copy


class PairedRows(Dataset[dict[str, Any]]):
    """Forget rows, each with a retained row that is drawn anew at each read."""

    def __init__(self, forget: TensorData, retain: TensorData) -> None:
        """Take both sets, as tokens."""
        self._forget, self._retain = forget, retain

    def __len__(self) -> int:
        return len(self._forget)

    def __getitem__(self, i: int) -> dict[str, Any]:
        j = int(torch.randint(len(self._retain), (1,)))
        return {"forget": _row(self._forget, i), "retain": _row(self._retain, j)}


class UnlearnTrainer(Trainer):
    """Trains a language model to forget: ``compute_loss`` is the method's.

    The run is as long and as fast as ``args`` say: a method's own run and stop rule are those of
    ``unlearnkit.unlearn``. Batches are ``{"forget": {...}, "retain": {...}}``; batches with
    ``labels``, as of ``eval_dataset``, have the model's own loss.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        forget_dataset: Any,
        retain_dataset: Any,
        processing_class: Any = None,
        eval_dataset: Any = None,
        peft_config: Any = None,
        method: Method | str = "npo",
        max_length: int | None = None,
        task: Literal["causal_lm", "masked_lm", "seq2seq"] = "causal_lm",
        **more: Any,
    ) -> None:
        """Take the model and both sets.

        Args:
            model: Trained in place; with ``peft_config`` its layers are replaced by adapted ones.
            args: Of the training; ``remove_unused_columns`` is set to False.
            forget_dataset: Rows that must go, in any form that a case of the task takes.
            retain_dataset: Rows that stay, likewise.
            processing_class: The tokenizer; not needed for sets that are tokenised.
            eval_dataset: Rows for the model's own loss, likewise.
            peft_config: A ``LoraConfig``: the adapter alone is trained.
            method: A language-model method, or its id.
            max_length: Most tokens of a row; the tokenizer's when None.
            task: Which tokens the model predicts.
            **more: As ``Trainer`` takes them: ``callbacks``, ``optimizers``, ``compute_metrics``.

        Raises:
            UnsupportedError: If the method is no loss of language models.
        """
        how = build_method(method) if isinstance(method, str) else method
        if not isinstance(how, LanguageMethod):
            raise UnsupportedError(
                f"{how.id} is no loss of a language model that a Trainer could minimise; use"
                " unlearnkit.unlearn, or a method such as npo"
            )
        read = _task(task, processing_class, max_length)
        case = _case(forget_dataset, retain_dataset, eval_dataset, read)
        self._rt = Runtime.on(str(args.device), seed=args.seed)
        self.problem = _problem(model, case, _adapter(peft_config, how), args, self._rt)
        self.unlearning_method = how
        self._term = how.forget_term(self.problem, self._rt)
        self._weigh = how.weighing(self.problem, self._rt)
        self._reference = ReferenceModel(self.problem, self._rt)
        args.remove_unused_columns = False
        trained: Any = self.problem.model
        if args.gradient_checkpointing and hasattr(trained, "peft_config"):
            trained.enable_input_require_grads()
        super().__init__(
            model=trained,
            args=args,
            train_dataset=PairedRows(_tensors(self.problem.forget), _tensors(self.problem.retain)),
            eval_dataset=None if case.test is None else _Rows(_tensors(View.all(case.test))),
            data_collator=_stack,
            processing_class=processing_class,
            **more,
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the method's total of a batch of pairs; the model's loss of any other batch."""
        if "forget" not in inputs:
            rows = {name: t for name, t in inputs.items() if name != "row"}
            return super().compute_loss(model, rows, return_outputs, num_items_in_batch)
        p, how, task = self.problem, self.unlearning_method, language_task(self.problem)
        go, stay = (_batch(inputs[part]) for part in ("forget", "retain"))
        seen = TokenModel(model, task, p.forget)(go)
        done = self.state.global_step
        forget = self._term(ForgetStep(seen, self._reference, model, p, self._rt, done))
        retain = forget.new_zeros(())
        if how.retain_weight:
            kept = TokenModel(model, task, p.retain)(stay)
            retain = how.retain_term(kept, self._reference)
        total = self._weigh(forget, retain, done / max(self.state.max_steps, 1))
        return (total, {"forget": forget, "retain": retain}) if return_outputs else total


class _Rows(Dataset[dict[str, Tensor]]):
    """Rows as a model of transformers takes them."""

    def __init__(self, data: TensorData) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return _row(self._data, i)


def _task(task: str, processing_class: Any, max_length: int | None) -> Any:
    if processing_class is None:
        return task
    return tasks()[task](processing_class=processing_class, max_length=max_length)


def _case(forget: Any, retain: Any, test: Any, task: Any) -> Case:
    for name, rows in (("forget_dataset", forget), ("retain_dataset", retain)):
        if rows is None:
            raise InputError(f"{name}: give the rows")
    return Case.from_parts(forget=forget, retain=retain, test=test, task=task)


def _adapter(peft_config: Any, how: LanguageMethod) -> LowRankAdapter | None:
    if peft_config is None:
        return how.peft_config
    checked = type(how).build(peft_config=peft_config)
    return checked.peft_config


def _problem(
    model: nn.Module,
    case: Case,
    adapter: LowRankAdapter | None,
    args: TrainingArguments,
    rt: Runtime,
) -> Problem:
    parts = case.partition(None)
    assert parts.forget is not None
    assert parts.retain is not None
    if adapter is not None:
        model = add_adapter(model, adapter)
        rt.note(adapter_note(model))
    return Problem(
        model=model,
        original=reading_copy(model, case, parts, rt),
        task=case.task,
        forget=parts.forget,
        retain=parts.retain,
        validation=None,
        recipe=Recipe(
            optimizer="adamw",
            lr=args.learning_rate or 1e-5,
            epochs=max(1, round(args.num_train_epochs)),
            batch_size=args.per_device_train_batch_size,
        ),
    )


def _tensors(view: View) -> TensorData:
    assert isinstance(view.data, TensorData)
    return view.data


def _row(data: TensorData, i: int) -> dict[str, Tensor]:
    x = (
        {"input_ids": data.x[i]}
        if isinstance(data.x, Tensor)
        else {n: t[i] for n, t in data.x.items()}
    )
    return {**x, "labels": data.y[i], "row": torch.tensor(i)}


def _stack(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return rows, or pairs of them, as one batch."""
    return {
        name: _stack([row[name] for row in rows])
        if isinstance(rows[0][name], Mapping)
        else torch.stack([row[name] for row in rows])
        for name in rows[0]
    }


def _batch(rows: Mapping[str, Tensor]) -> Batch:
    x = {name: t for name, t in rows.items() if name not in {"labels", "row"}}
    return Batch(x, rows["labels"], rows["row"].cpu())
