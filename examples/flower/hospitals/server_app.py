"""Server: train, forget a hospital or a class, and compare with retraining without it."""

import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from hospitals.task import CLIENTS, digits, federation, network
from unlearnkit.federated import MemoryHistory
from unlearnkit.flower import FedAFStrategy, FedEraserStrategy, RetrainStrategy

app = ServerApp()


def accuracy(arrays: ArrayRecord) -> float:
    """Return the accuracy on the test set."""
    net, test = network(), digits().test
    net.load_state_dict(arrays.to_torch_state_dict())
    with torch.inference_mode():
        return (net(test.x).argmax(1) == test.y).float().mean().item()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run it."""
    request, how = str(context.run_config["request"]), str(context.run_config["method"])
    together = federation(int(context.run_config["rounds"]))
    nodes = {"min_available_nodes": CLIENTS}
    torch.manual_seed(0)
    start, history, trained = network(), MemoryHistory(every=2), network()
    first = ArrayRecord(start.state_dict())

    record = FedEraserStrategy("", together, history, trained, **nodes)
    before = record.start(grid, first, num_rounds=together.rounds).arrays
    if how == "active-forgetting":
        forget = FedAFStrategy(request, together, **nodes)
        after = forget.start(grid, before, num_rounds=forget.rounds).arrays
    else:
        erase = FedEraserStrategy(request, together, history, trained, **nodes)
        rounds = len(erase.stored)
        after = erase.start(grid, erase.initial_arrays, num_rounds=rounds).arrays
    again = RetrainStrategy(request, together, **nodes)
    truth = again.start(grid, first, num_rounds=together.rounds).arrays
    for name, arrays in {"trained": before, how: after, "retrained": truth}.items():
        print(f"{name}: test accuracy {accuracy(arrays):.3f}")
