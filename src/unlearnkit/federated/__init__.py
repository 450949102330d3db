"""Federated training in this process: clients, rounds of averaging, and their history."""

from unlearnkit.federated.client_splits import dirichlet_split as dirichlet_split
from unlearnkit.federated.client_splits import iid_split as iid_split
from unlearnkit.federated.federated_case import Client as Client
from unlearnkit.federated.federated_case import federated_case as federated_case
from unlearnkit.federated.federation import Federation as Federation
from unlearnkit.federated.update_history import DiskHistory as DiskHistory
from unlearnkit.federated.update_history import MemoryHistory as MemoryHistory
