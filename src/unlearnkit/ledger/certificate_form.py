"""Certificate form: every field of a certificate, with its meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from unlearnkit.core.checked import FrozenModel
from unlearnkit.ledger.drift import Drift

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$")]


class FileDigest(FrozenModel):
    """The SHA-256 of a file."""

    sha256: Sha256


class SignedFile(FrozenModel):
    """A file that the certificate is about."""

    name: str = Field(min_length=1)
    digest: FileDigest


class RequestAnswered(FrozenModel):
    """A request that the batch answered."""

    id: str = Field(min_length=1)
    arrival: Time = Field(alias="received")
    deadline: Time
    late: bool
    reason: str
    kind: Literal["rows", "groups", "classes"]
    subjects: list[Sha256] = Field(min_length=1)
    """Keyed pseudonyms."""


class RowsRemoved(FrozenModel):
    """The rows, as they were committed to before anything was changed."""

    number: int = Field(ge=1)
    commitment: Sha256
    """Keyed digest of their content."""

    subject_key: str
    """Which key made commitment and pseudonyms."""

    commit_time: Time = Field(alias="committed")
    sequence: int = Field(ge=1)
    """The entry that holds the commitment."""


class DataDigest(FrozenModel):
    """Keyed digests of a training set."""

    rows: Sha256
    names: Sha256
    """Of keys and owners, in order."""


class DataBeforeAfter(FrozenModel):
    """The training set before and after the deletion."""

    before: DataDigest
    after: DataDigest


class CodeVersion(FrozenModel):
    """The library that did it."""

    unlearnkit: str
    numerics: Count
    source: Sha256


class MachineFacts(FrozenModel):
    """What else decides the bits of a run."""

    python: str
    torch: str
    platform: str
    machine: str
    threads: int = Field(ge=1)


class ModelBeforeAfter(FrozenModel):
    """Digests of the weights."""

    before: Sha256
    after: Sha256


class MethodUsed(FrozenModel):
    """The method whose model was published."""

    id: str
    settings: dict[str, Any]
    seed: Count
    device: str
    cost: float | None
    """As a share of retraining; none for a training loop of the user's own."""


class EvidenceKind(FrozenModel):
    """What the claim rests on."""

    kind: Literal["exact", "certified", "empirical"]
    why: str


class AuditFound(FrozenModel):
    """What the audit found, and what it could have found."""

    tier: Literal["fast", "reference", "strong"]
    verdict: str
    reason: str
    power: dict[str, str]
    report: Sha256


class PolicyUsed(FrozenModel):
    """The rules that accepted the model."""

    digest: Sha256
    signer: str


class ChainPosition(FrozenModel):
    """The entry of the model that the policy accepted."""

    sequence: int = Field(ge=1)
    digest: Sha256


class DeletionPredicate(FrozenModel):
    """What is stated of the files."""

    ledger: str
    batch: str
    issue_time: Time = Field(alias="issued")
    requests: list[RequestAnswered] = Field(min_length=1)
    rows: RowsRemoved
    data: DataBeforeAfter
    code: CodeVersion
    environment: MachineFacts
    model: ModelBeforeAfter
    method: MethodUsed
    evidence: EvidenceKind
    audit: AuditFound
    drift: Drift
    does_not_prove: list[str] = Field(min_length=1)
    policy: PolicyUsed
    chain: ChainPosition


class CertificateForm(FrozenModel):
    """A certificate: the in-toto statement in the payload of ``certificate.json``."""

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    predicate_type: Literal["urn:unlearnkit:unlearning:v0.1"] = Field(alias="predicateType")
    subject: list[SignedFile] = Field(min_length=1)
    predicate: DeletionPredicate


class EntryForm(FrozenModel):
    """A ledger entry: a line of an exported ``entries.jsonl``."""

    sequence: int = Field(ge=1)
    time: Time
    kind: str = Field(min_length=1)
    """What happened, such as ``request``, ``batch``, ``attempt`` or ``certificate``."""

    body: dict[str, Any]
    previous: Sha256
    """The digest of the entry before; zeros for the first."""

    digest: Sha256
