"""Deletion run: a batch of requests from the search for rows to a published model."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unlearnkit import catalog
from unlearnkit.auditing.audit import audit
from unlearnkit.auto.chooser import unlearn
from unlearnkit.auto.selection import AutoFailedError
from unlearnkit.cache import Cache
from unlearnkit.checkpoint import load_weights, save_weights
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.auto_method import AUTO
from unlearnkit.core.case import Case
from unlearnkit.core.digest import NUMERICS, model_digest, source_digest
from unlearnkit.core.errors import DivergedError, InputError, UnsupportedError
from unlearnkit.core.files import write_bytes, write_together
from unlearnkit.core.method import Method
from unlearnkit.core.request import ForgetRequest
from unlearnkit.core.runtime import Reporter, Runtime
from unlearnkit.core.version import __version__
from unlearnkit.ledger.deletion_certificate import SigningKey, certificate_statement
from unlearnkit.ledger.drift import Drift, next_drift, published_drift
from unlearnkit.ledger.model_registry import RegistryError, check_installed
from unlearnkit.ledger.new_ledger import MODELS, ORIGINAL, WEIGHTS, signing_key
from unlearnkit.ledger.policy import LedgerPolicy, read_policy
from unlearnkit.ledger.register import Lease, LedgerEntry, Register, now
from unlearnkit.ledger.registration import register_published
from unlearnkit.ledger.subject_rows import Search, case_now, data_facts, search
from unlearnkit.ledger.subjects import SubjectKeys
from unlearnkit.ledger.verify import CERTIFICATE, canonical, sha256
from unlearnkit.oracles import oracle
from unlearnkit.report.report import Report
from unlearnkit.unlearning.run_method import Unlearned, fresh_model

REPORT, PAGE = "report.json", "report.html"
POINTER = "current.json"
EXACT = "retrain"
"""The method whose result never saw the rows."""


@dataclass(frozen=True)
class BatchOutcome:
    """What became of a batch."""

    batch: str
    state: str
    """``done`` or ``rejected``; empty where no request was found."""

    requests: tuple[str, ...]
    missing: Mapping[str, str]
    """Requests whose subjects are in no row, each with the reason."""

    folder: str = ""
    """Of the published model, within the ledger."""

    why: str = ""

    registry: str = ""
    """Why the published model is not in the registry yet; empty where it is, or none is named."""


def run_batch(
    folder: Path,
    case: Case,
    *,
    at_once: bool = False,
    retry: bool = False,
    reporter: Reporter | None = None,
    cache: Cache | None = None,
    lease_seconds: float = 60.0,
    clock: Callable[[], datetime] = now,
    ray: str | None = None,
) -> BatchOutcome | None:
    """Answer the requests that are due, as one batch, or go on with one that was interrupted.

    First every row is found and committed to; nothing is changed before. Requests whose subjects
    are in no row leave the queue with the reason. Then the methods of the policy are tried, each
    audited, until the policy accepts one; its model is published with a certificate.

    Args:
        folder: The ledger.
        case: What the model was trained on, as on the first day or without the deleted rows.
        at_once: Whether to begin although the rules of the policy would still wait.
        retry: Whether to try rejected requests again.
        reporter: Hears of progress.
        cache: Where trained models are kept.
        lease_seconds: How long others wait for this worker when it says nothing.
        clock: Gives the time.
        ray: Address of a Ray cluster that trains the models of audits, as in ``oracle``.

    Returns:
        What became of the batch; None where no request is due. Where none is due, and the last
        model could still not be registered, a ``RegistryError`` says why.

    Raises:
        InputError: If another worker is at work, or keys, model or data are not the ledger's.
    """
    with Register(folder, clock) as register:
        policy = read_policy(folder)
        key = signing_key(folder, register, policy)
        lease = register.take_lease(lease_seconds)
        if lease is None:
            raise InputError(
                f"ledger: another worker is at work ({register.worker()}); it will answer what is"
                " due"
            )
        with lease:
            kept = cache or Cache()
            work = BatchWork(folder, register, lease, policy, key, reporter, kept, ray)
            return work.run(case, at_once=at_once, retry=retry)


@dataclass
class BatchWork:
    """The work of one worker that has the lease."""

    folder: Path
    register: Register
    lease: Lease
    policy: LedgerPolicy
    key: SigningKey
    reporter: Reporter | None
    cache: Cache
    ray: str | None
    rt: Runtime = field(init=False)

    def __post_init__(self) -> None:
        self.rt = Runtime.on(self.policy.device, seed=self.policy.seed, reporter=self.reporter)

    def run(self, case: Case, *, at_once: bool, retry: bool) -> BatchOutcome | None:
        """Go on with the batch that is running, or begin one."""
        if self.policy.registry is not None:
            check_installed()
        self._point()
        self._record_policy()
        running = self.register.requests("running")
        names = [] if running else self._due(at_once=at_once, retry=retry)
        if not running and not names:
            register_published(self.folder, self.register, self.policy, self.lease)
            return None
        keys = SubjectKeys(self.folder)
        case = case_now(self.register, keys, case)
        if running:
            batch = self.register.entry(running[0].latest)
            found = search(self.register, keys, case, batch.body["requests"])
            self._check_same(batch, found, case)
        else:
            found = search(self.register, keys, case, names)
            for name, why in found.missing.items():
                self.register.append("not_found", {"id": name, "why": why}, self.lease)
            if found.request is None:
                return BatchOutcome("", "", (), found.missing, why="no subject has a row")
            batch = self._begin(case, found)
        assert found.request is not None
        return self._carry_out(batch, case, found.request, found.missing)

    def _due(self, *, at_once: bool, retry: bool) -> list[str]:
        """Return the requests of the next batch; none while the policy still waits."""
        rule = self.policy.batch
        waiting = self.register.requests("waiting", *(["rejected"] if retry else []))
        time = self.register.clock()

        def near(deadline: str) -> bool:
            left = datetime.fromisoformat(deadline) - time
            return left <= timedelta(days=rule.days_before_deadline)

        def old(received: str) -> bool:
            waited = time - datetime.fromisoformat(received)
            return waited >= timedelta(days=rule.longest_wait_days)

        due = at_once or retry or len(waiting) >= rule.at_least
        if not due and not any(near(r.deadline) or old(r.arrival) for r in waiting):
            return []
        return [r.id for r in waiting[: rule.most]]

    def _record_policy(self) -> None:
        """Write the policy down where it is another than at the last run."""
        content = self.policy.model_dump(mode="json")
        told = self.register.latest("policy")
        if told is None or told.body["digest"] != sha256(canonical(content)):
            body = {"digest": sha256(canonical(content)), "policy": content}
            self.register.append("policy", body, self.lease)

    def _begin(self, case: Case, found: Search) -> LedgerEntry:
        """Commit to the rows before anything is changed."""
        forget = case.partition(found.request).forget
        assert forget is not None
        assert found.request is not None
        model = current_model(self.register)
        load_current(self.folder, self.register, case, self.rt)
        keys = SubjectKeys(self.folder)
        key = keys.current()
        assert case.train is not None
        drift = published_drift(self.register)
        due = self.policy.retrain_when.due(drift, len(forget), len(case.train))
        body = {
            "id": f"batch-{self.register.count('batch') + 1:04}",
            "requests": list(found.requests),
            "rows": len(forget),
            "commitment": commitment(case, found.request, keys),
            "subject_key": key.id,
            "data": {
                "before": data_facts(case, key),
                "after": data_facts(case.after_deletion(found.request), key),
            },
            "model": model.digest,
            "code": {
                "unlearnkit": __version__, "numerics": NUMERICS, "source": source_digest()
            },
            "environment": environment(),
            **({"retrain": due} if due else {}),
        }  # fmt: skip
        return self.register.append("batch", body, self.lease)

    def _check_same(self, batch: LedgerEntry, found: Search, case: Case) -> None:
        """Refuse to go on with a batch whose rows are no longer those that were committed."""
        key = SubjectKeys(self.folder).find(batch.body["subject_key"])
        whole = found.request is not None and not found.missing
        before = batch.body["data"]["before"]
        if not whole or key is None or before != data_facts(case, key):
            raise InputError(
                f"ledger: the rows of {batch.body['id']} are no longer those that were found when"
                " it began; give the case as it was then"
            )

    def _carry_out(
        self, batch: LedgerEntry, case: Case, request: ForgetRequest, missing: Mapping[str, str]
    ) -> BatchOutcome:
        """Try the methods of the policy in order; publish the first that is accepted."""
        name, requests = batch.body["id"], tuple(batch.body["requests"])
        plan = (EXACT,) if batch.body.get("retrain") else self.policy.plan
        tried = self.register.of_batch("attempt", name)
        while not (tried and tried[-1].body["accepted"]):
            if len(tried) >= len(plan):
                why = "; ".join(f"{e.body['id']}: {e.body['why']}" for e in tried)
                self.register.append(
                    "rejected",
                    {
                        "batch": name, "requests": list(requests), "why": why,
                        "notify": self.policy.notify,
                    },
                    self.lease,
                )  # fmt: skip
                return BatchOutcome(name, "rejected", requests, missing, why=why)
            attempt = Attempt(self, batch, case, request, tried, plan)
            tried.append(self.register.append("attempt", attempt.carry_out(), self.lease))
        folder, down = self._publish(batch, tried[-1]), ""
        try:
            register_published(self.folder, self.register, self.policy, self.lease)
        except RegistryError as e:  # the next run tries again
            down = str(e)
        why = str(tried[-1].body["why"])
        return BatchOutcome(name, "done", requests, missing, folder, why, down)

    def _publish(self, batch: LedgerEntry, attempt: LedgerEntry) -> str:
        """Sign and record what was accepted, and let the pointer name it."""
        body = attempt.body
        place = self.folder / body["folder"]
        for name, want in body["files"].items():
            if not (place / name).is_file() or sha256((place / name).read_bytes()) != want:
                raise InputError(
                    f"ledger: {str(place / name)!r} was changed before it was published; put back a"
                    " copy"
                )
        requests = [
            self.register.entry(self.register.request(r).entry).facts()
            for r in batch.body["requests"]
        ]
        ledger = str(self.register.entry(1).body["id"])
        envelope = self.key.envelope(
            certificate_statement(
                body["files"], ledger, self.policy.signer.name, batch.facts(), attempt.facts(),
                requests,
            )
        )  # fmt: skip
        write_bytes(place / CERTIFICATE, envelope)
        self.register.append(
            "certificate",
            {
                "batch": body["batch"],
                "requests": batch.body["requests"],
                "attempt": attempt.sequence,
                "certificate": sha256(envelope),
                "model": body["model"],
                "folder": body["folder"],
            },
            self.lease,
        )
        self._point()
        return str(body["folder"])

    def _point(self) -> None:
        """Let the pointer name the model that was published last; also after a kill."""
        text = pointer_text(self.register)
        path = self.folder / POINTER
        if not path.is_file() or path.read_bytes() != text:
            write_bytes(path, text)


@dataclass(frozen=True)
class CurrentModel:
    """The model that the ledger stands for now."""

    folder: str
    """Within the ledger."""

    digest: str


def current_model(register: Register) -> CurrentModel:
    """Return where the model is that was published last, and its digest."""
    done = register.latest("certificate")
    if done is not None:
        return CurrentModel(done.body["folder"], done.body["model"])
    return CurrentModel(f"{MODELS}/{ORIGINAL}", register.entry(1).body["model"])


def pointer_text(register: Register) -> bytes:
    """Return what the pointer file must hold."""
    model = current_model(register)
    return canonical({"folder": model.folder, "file": WEIGHTS, "model": model.digest}) + b"\n"


def load_current(folder: Path, register: Register, case: Case, rt: Runtime) -> nn.Module:
    """Return the model that was published last; a file that was changed is an error."""
    model = current_model(register)
    return load_model(folder / model.folder / WEIGHTS, model.digest, case, rt)


def load_model(path: Path, want: str, case: Case, rt: Runtime) -> nn.Module:
    """Return a model of the ledger; another than was recorded is an error."""
    model = load_weights(fresh_model(case, rt), path).eval()
    if model_digest(model) != want:
        raise InputError(
            f"ledger: {str(path)!r} is not the model that was recorded: another program or ledger"
            " has changed it; put back a copy"
        )
    return model


def commitment(case: Case, request: ForgetRequest, keys: SubjectKeys, name: str = "") -> str:
    """Return the keyed digest of the content of the rows that a request removes."""
    forget = case.partition(request).forget
    assert forget is not None
    key = keys.find(name) if name else keys.current()
    if key is None:
        raise InputError("ledger: the key of this commitment is destroyed; it cannot be repeated")
    return key.commit(forget.data.pick(forget.rows).key().encode())


def environment() -> dict[str, Any]:
    """Return what else decides the bits of a run."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "platform": sys.platform,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


@dataclass
class Attempt:
    """One method on one batch, audited and judged by the policy."""

    work: BatchWork
    batch: LedgerEntry
    case: Case
    request: ForgetRequest
    before: list[LedgerEntry]
    """The attempts before it."""

    plan: tuple[str, ...]
    """The methods of the batch, in the order in which they are tried."""

    @property
    def cost_so_far(self) -> float:
        """Return what the attempts before cost, as a share of retraining."""
        return sum(e.body["cost"] or 0.0 for e in self.before)

    def carry_out(self) -> dict[str, Any]:
        """Return the content of the entry: what was tried, what was found, what the policy says."""
        policy = self.work.policy
        name = self.plan[len(self.before)]
        facts = {
            "batch": self.batch.body["id"], "id": name, "accepted": False, "cost": 0.0,
            "policy": sha256(canonical(policy.model_dump(mode="json"))),
        }  # fmt: skip
        left = policy.max_cost - self.cost_so_far
        last = name == EXACT and len(self.before) == len(self.plan) - 1
        if left <= 0 and not last:
            return facts | {"why": f"not tried: the cost cap {policy.max_cost:g} is spent"}
        rt = self.work.rt.fork(policy.seed)
        original = load_current(self.work.folder, self.work.register, self.case, rt)
        try:
            how = _method(name, policy, left)
            done = unlearn(
                original, self.case, self.request, how, rt, cache=self.work.cache
            )  # fmt: skip
        except (AutoFailedError, UnsupportedError, DivergedError) as e:
            return facts | {"why": f"did not end in a model: {e}"}
        return facts | self._judge(original, done)

    def _judge(self, original: nn.Module, done: Unlearned) -> dict[str, Any]:
        policy, rt = self.work.policy, self.work.rt.fork(self.work.policy.seed)
        truth = None
        if policy.tier is AuditTier.REFERENCE:
            truth = oracle(
                self.case, self.request, seeds=policy.oracles, rt=rt, cache=self.work.cache,
                ray=self.work.ray,
            )  # fmt: skip
        report = aggregate(
            audit(
                done, oracle=truth, tier=policy.tier, models=policy.ensemble_size, rt=rt,
                cache=self.work.cache, ray=self.work.ray,
            )
        )  # fmt: skip
        before = published_drift(self.work.register)
        exact = is_exact(done.method, before)
        drift = next_drift(
            before, (original, done.model), self.case, self.request, rt,
            cost=self.cost_so_far + (report.cost.ratio or 0.0),
            retrained=self.batch.body["id"] if exact else "",
        )  # fmt: skip
        refused = "" if exact else policy.retrain_when.refuses(drift)
        accepted = policy.accepts(report.verdict, exact=exact) and not refused
        folder = f"{MODELS}/{self.batch.body['id']}-{len(self.before) + 1}"
        return {
            **_method_facts(done, report),
            **_audit_facts(report),
            "accepted": accepted,
            "why": f"{report.verdict}: {'accepted' if accepted else 'refused'} by the policy"
            + (f": {refused}" if refused else ""),
            "evidence": evidence(done.method.id if exact else "", report.tier),
            "drift": drift.model_dump(mode="json"),
            "device": policy.device,
            "folder": folder,
            "files": self._write(done.model, report, self.work.folder / folder),
        }

    def _write(self, model: nn.Module, report: Report, folder: Path) -> dict[str, str]:
        """Write model and report; return the digest of each file."""
        names = [REPORT]
        if self.work.policy.page and find_spec("jinja2") and find_spec("matplotlib"):
            names.append(PAGE)
        save_weights(model, folder / WEIGHTS)
        write_together({folder / name: report.content(folder / name) for name in names})
        return {name: sha256((folder / name).read_bytes()) for name in (WEIGHTS, *names)}


def _method(name: str, policy: LedgerPolicy, left: float) -> Method:
    settings = dict(policy.settings.get(name, {}))
    if name == AUTO:
        settings.setdefault("budget", left)
    return catalog.method(name, None, **settings)


def _method_facts(done: Unlearned, report: Report) -> dict[str, Any]:
    return {
        "id": done.method.id,
        "settings": done.method.model_dump(mode="json"),
        "seed": done.seed,
        "cost": report.cost.ratio,
        "model": model_digest(done.model),
    }


def _audit_facts(report: Report) -> dict[str, Any]:
    return {
        "tier": str(report.tier),
        "verdict": str(report.verdict),
        "reason": report.reason,
        "power": {a.question: a.power for a in report.answers},
        "limits": list(report.limits),
        "report": sha256(report.content(Path(REPORT))),
    }


def is_exact(method: Method, before: Drift | None) -> bool:
    """Return whether a method leaves nothing of any row that this ledger removed.

    SISA keeps the networks of shards that had no row of the batch: these must be exact themselves.
    """
    return method.id == EXACT or (
        bool(method.info.exact) and (before is None or not before.batches)
    )


def evidence(exact: str, tier: AuditTier) -> dict[str, str]:
    """Return which kind of evidence there is for a deletion, and what it rests on.

    Args:
        exact: The method, where its model never saw the rows; else empty.
        tier: Of the audit.

    Returns:
        ``kind`` and ``why``.
    """
    if not exact:
        return {
            "kind": "empirical",
            "why": f"an audit of tier {tier} looked for what is left of the rows; it is no proof",
        }
    what = "the model was" if exact == EXACT else "the networks of all shards with the rows were"
    return {
        "kind": "exact",
        "why": f"{what} trained from scratch on the rows that stay, and never saw the others",
    }


def aggregate(report: Report) -> Report:
    """Return a report without what belongs to single rows.

    Left out are margins, labels and classes of removed rows, exposures of records, and the plain
    digests of the rows' positions and of the training data, from which few rows could be guessed.
    """
    strong = report.strong
    if strong is not None:
        strong = strong.model_copy(update={"exposure": (), "laws": ()})
    return report.model_copy(
        update={
            "margins": (),
            "classes": (),
            "strong": strong,
            "request_summary": report.request_summary.model_copy(update={"labels": {}}),
            "provenance": report.provenance.model_copy(
                update={"request": "", "training_data": "", "removed_rows": None}
            ),
        }
    )
