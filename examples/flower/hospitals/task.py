"""What server and clients share: network, federation, and the rows of each hospital."""

import torch
from flwr.app import Context
from torch import nn

import unlearnkit as uk
from unlearnkit.federated import Federation, iid_split
from unlearnkit.flower import ClientSetup

CLIENTS = 10
TASK = uk.Classification(10)


def network() -> nn.Module:
    """Return an untrained perceptron 64-128-10."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def federation(rounds: int) -> Federation:
    """Return how the hospitals train."""
    recipe = uk.Recipe(lr=0.1, momentum=0.9, epochs=2, batch_size=32)
    return Federation(rounds=rounds, recipe=recipe)


def digits() -> uk.Case:
    """Return the rows of all hospitals; in a real federation nobody has them."""
    return uk.catalog.cases()["digits"].make()


def hospital(context: Context, request: str) -> ClientSetup:
    """Return one hospital, and which of its rows a request names.

    A real one reads its own rows here, and looks a request up in its own records.
    """
    me, train = int(context.node_config["partition-id"]), digits().train
    rows = train.pick((iid_split(len(train), CLIENTS) == me).nonzero()[:, 0])
    forget = torch.zeros(len(rows), dtype=torch.bool)
    if request.startswith("hospital-"):
        forget[:] = int(request.removeprefix("hospital-")) == me
    elif request.startswith("class-"):
        forget = rows.y == int(request.removeprefix("class-"))
    return ClientSetup(
        client=me,
        data=rows,
        forget=forget,
        fresh=network,
        task=TASK,
        federation=federation(int(context.run_config["rounds"])),
    )
