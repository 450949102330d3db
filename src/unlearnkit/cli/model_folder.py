"""Model folders: documents forgotten by a language model of transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlearnkit.auto.chooser import unlearn
from unlearnkit.catalog import method as build_method
from unlearnkit.catalog import tasks
from unlearnkit.cli.console import Console
from unlearnkit.cli.run_folder import check_free, new_folder
from unlearnkit.core.case import Case
from unlearnkit.core.documents import Documents
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.files import write_text
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.token_rows import TokenReader
from unlearnkit.tasks.token_task import TokenTask
from unlearnkit.unlearning.run_method import Unlearned

RECORD = "unlearning.json"

FINE_TUNED = Recipe(optimizer="adamw", lr=5e-5, epochs=3, batch_size=8)
"""How a model is taken to have been trained: the defaults of transformers' Trainer."""


def unlearn_documents(
    folder: str,
    forget: Sequence[str],
    retain: Sequence[str],
    out: Path,
    talk: Console,
    *,
    task: str,
    method: str,
    preset: str | None,
    settings: dict[str, Any],
    seed: int,
    device: str,
    force: bool,
) -> dict[str, Any]:
    """Forget documents, and write model, tokenizer and record to a folder.

    Args:
        folder: Of a model and its tokenizer, as ``save_pretrained`` writes them.
        forget: Files or patterns: texts, or JSON lines of rows with prompt and completion.
        retain: Likewise; those of the forget set among them are left out.
        out: The new folder.
        talk: Hears of progress.
        task: Which tokens the model predicts: ``causal_lm``, ``masked_lm`` or ``seq2seq``.
        method: Id of the method.
        preset: Named settings to start from.
        settings: Hyper-parameters.
        seed: Root of all randomness.
        device: Where to run.
        force: Whether to replace an older folder.

    Returns:
        The record.
    """
    check_free(out, force=force)
    how = build_method(method, preset, **settings)
    gone = Documents.from_files(*forget)
    kept = _documents_that_stay(gone, retain)
    kind = tasks()[task]
    model, tokenizer = _load(folder, kind)
    case = Case.from_parts(
        forget=_rows(gone),
        retain=_rows(kept),
        task=_task_of(kind, model, tokenizer),
        recipe=FINE_TUNED,
    )
    talk.say(f"forgetting {len(gone)} documents with {how.id}; {len(kept)} stay")
    done = unlearn(model, case, None, how, Runtime.on(device, seed=seed, reporter=talk))
    record = _record(folder, done, gone, len(kept))
    result: Any = done.model
    with new_folder(out, force=force) as part:
        result.save_pretrained(part)
        tokenizer.save_pretrained(part)
        write_text(part / RECORD, json.dumps(record, indent=1) + "\n")
    return record


def _documents_that_stay(gone: Documents, patterns: Sequence[str]) -> Documents:
    if not patterns:
        raise InputError("--retain: name documents that stay, such as --retain 'docs/*.txt'")
    found = Documents.from_files(*patterns)
    kept = [i for i, name in enumerate(found.names) if name not in gone.names]
    if not kept:
        raise InputError("--retain: all of these documents are to be forgotten; name others too")
    return Documents(tuple(found.texts[i] for i in kept), tuple(found.names[i] for i in kept))


def _task_of(kind: type[TokenTask], model: Any, tokenizer: Any) -> TokenTask:
    """Return the task with the limits and the first decoder token of a model's configuration."""
    context = getattr(model.config, "max_position_embeddings", None)
    lengths = [n for n in (TokenReader(tokenizer).limit, context) if n is not None]
    more: dict[str, Any] = {}
    if kind.name == "seq2seq":
        more["decoder_start"] = getattr(model.config, "decoder_start_token_id", None)
    return kind(processing_class=tokenizer, max_length=min(lengths, default=None), **more)


def _rows(found: Documents) -> Any:
    """Return documents as they are; rows of JSON lines where files hold these."""
    lines = [name.endswith(".jsonl") for name in found.names]
    if not any(lines):
        return found
    if not all(lines):
        raise InputError(f"files: {found.names[lines.index(False)]!r} is no .jsonl as others are")
    rows = []
    for name, text in zip(found.names, found.texts, strict=True):
        for i, line in enumerate(text.splitlines(), 1):
            try:
                rows += [json.loads(line)] if line.strip() else []
            except ValueError as e:
                raise InputError(f"{name}: line {i} is no JSON: {e}") from None
    return rows


def _load(folder: str, kind: type[TokenTask]) -> tuple[Any, Any]:
    try:
        import transformers
    except ImportError:
        raise UnsupportedError(
            f"--task {kind.name} needs transformers; pip install 'unlearnkit[hf]'"
        ) from None
    if not Path(folder).is_dir():
        raise InputError(f"{folder!r}: no such folder of a model")
    if not (Path(folder) / "config.json").is_file():
        raise InputError(f"{folder!r} is no folder of a model: it has no config.json")
    try:
        model = getattr(transformers, kind.loader).from_pretrained(folder, local_files_only=True)
        return model, transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as e:
        raise InputError(
            f"{folder!r} cannot be loaded as a {kind.kind}: {str(e).splitlines()[0]}"
        ) from e


def _record(folder: str, done: Unlearned, gone: Documents, stay: int) -> dict[str, Any]:
    return {
        "model": folder,
        "method": done.method.id,
        "settings": done.method.model_dump(mode="json"),
        "forget": list(gone.names),
        "documents that stay": stay,
        "seed": done.seed,
        "seconds": round(done.seconds, 3),
        "forward": done.cost.forward,
        "backward": done.cost.backward,
        "notes": list(done.notes),
    }
