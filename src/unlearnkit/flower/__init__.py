"""Flower adapter: strategies and a ClientApp mod that remove a client, a class or rows.

Needs the extra ``[federated]``, in an environment of its own: Flower pins older versions of what
the command line uses.
"""

from unlearnkit.flower.client_mod import ClientSetup as ClientSetup
from unlearnkit.flower.client_mod import train_function as train_function
from unlearnkit.flower.client_mod import unlearning_mod as unlearning_mod
from unlearnkit.flower.strategies import FedAFStrategy as FedAFStrategy
from unlearnkit.flower.strategies import FedEraserStrategy as FedEraserStrategy
from unlearnkit.flower.strategies import RetrainStrategy as RetrainStrategy
