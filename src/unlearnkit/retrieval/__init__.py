"""Retrieval-augmented models: a store of rows, a reader, and forgetting in both."""

from unlearnkit.retrieval.passage_reader import HashedWords as HashedWords
from unlearnkit.retrieval.passage_reader import PassageReader as PassageReader
from unlearnkit.retrieval.retrieval_case import retrieval_case as retrieval_case
from unlearnkit.retrieval.retrieval_model import RetrievalModel as RetrievalModel
from unlearnkit.retrieval.retrieval_store import Passages as Passages
from unlearnkit.retrieval.retrieval_store import RetrievalStore as RetrievalStore
from unlearnkit.retrieval.retrieval_store import StoreDeletion as StoreDeletion
