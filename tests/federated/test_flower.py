"""Flower adapter: the same bits as in process, on Flower's own messages and its simulation."""

import logging
from functools import partial

import pytest
import torch

import unlearnkit as uk

flwr = pytest.importorskip("flwr", reason="Flower is not installed: make test-federated")

from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402
from flwr.serverapp import Grid, ServerApp  # noqa: E402
from flwr.serverapp.strategy import FedAvg  # noqa: E402
from flwr.simulation import run_simulation  # noqa: E402

from unlearnkit.core.data import View  # noqa: E402
from unlearnkit.core.errors import DivergedError, InputError  # noqa: E402
from unlearnkit.core.method import Problem  # noqa: E402
from unlearnkit.core.runtime import Runtime  # noqa: E402
from unlearnkit.federated.federated_case import Client, federated_case  # noqa: E402
from unlearnkit.federated.federation import Federation, rows_by_client  # noqa: E402
from unlearnkit.federated.rounds import train_in_rounds  # noqa: E402
from unlearnkit.federated.update_history import MemoryHistory  # noqa: E402
from unlearnkit.flower import (  # noqa: E402
    ClientSetup,
    FedAFStrategy,
    FedEraserStrategy,
    RetrainStrategy,
    train_function,
    unlearning_mod,
)
from unlearnkit.methods.fed_eraser import FedEraser  # noqa: E402
from unlearnkit.methods.federated_active_forgetting import (  # noqa: E402
    FederatedActiveForgetting,
)
from unlearnkit.testing.toy_cases import toy_case  # noqa: E402

TASK = uk.Classification(3)
LOCAL = uk.Recipe(lr=0.05, epochs=2, batch_size=4)
METHOD = FederatedActiveForgetting(rounds=2, repair=0.5, local_epochs=3)
REQUESTS = {"client": Client(3), "class": uk.Classes(1), "rows": uk.Rows((0, 5, 7, 20))}


def federation(**how):
    return Federation(**{"rounds": 4, "recipe": LOCAL, **how})


def case_of(clients=10, **how):
    owners = torch.arange(60) % clients
    return federated_case(toy_case(TASK), federation(**how), clients=owners)


def setup(context, request, *, clients=10, settings=()):
    """Make the client of a node: its rows of the toy case, and those that a request names."""
    case = case_of(clients, **dict(settings))
    me = int(context.node_config["partition-id"])
    rows = (case.train.group == me).nonzero()[:, 0]
    forget = torch.zeros(len(case.train), dtype=torch.bool)
    if request:
        forget[case.partition(REQUESTS[request]).forget.rows] = True
    return ClientSetup(
        client=me,
        data=case.train.pick(rows),
        forget=forget[rows],
        fresh=case.fresh,
        task=TASK,
        federation=case.train_model.federation,
    )


def app_of(clients=10, **settings):
    make = partial(setup, clients=clients, settings=tuple(settings.items()))
    app = ClientApp(mods=[unlearning_mod(make)])
    app.train()(train_function(make))
    return app


class LocalGrid(Grid):
    """Delivers messages in this process, in any order, and loses those of some clients."""

    def __init__(self, app, clients, *, lose=(), lose_in=None, order=1):
        self.app, self.lose, self.lose_in, self.order = app, set(lose), lose_in, order
        self.contexts = {
            100 + 7 * k: Context(
                run_id=1, node_id=100 + 7 * k, node_config={"partition-id": k},
                state=RecordDict(), run_config={},
            )
            for k in range(clients)
        }  # fmt: skip
        self.log = []

    def set_run(self, run):
        raise NotImplementedError

    run = None

    def create_message(self, *args, **kwargs):
        raise NotImplementedError

    def get_node_ids(self):
        return list(self.contexts)

    def push_messages(self, messages):
        raise NotImplementedError

    def pull_messages(self, message_ids):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for m in list(messages)[:: self.order]:
            context = self.contexts[m.metadata.dst_node_id]
            client = context.node_config["partition-id"]
            config = m.content["config"]
            phase = config.get("phase", "")
            self.log.append((client, phase, config.get("number")))
            m.metadata.__dict__["_message_id"] = str(len(self.log))
            if client in self.lose and phase != "discover" and self.lose_in in {None, phase}:
                replies.append(Message(Error(code=0, reason="left"), reply_to=m))
                continue
            reply = self.app(m, context)
            reply.metadata.__dict__["_src_node_id"] = m.metadata.dst_node_id
            replies.append(reply)
        return replies


def start_model(seed=0):
    net = case_of().fresh()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.3)
    return net


def run(strategy, grid, net, rounds):
    done = strategy.start(grid, ArrayRecord(net.state_dict()), num_rounds=rounds)
    return done.arrays.to_torch_state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def in_process(method, case, net, request, seed):
    parts = case.partition(request)
    work = case.fresh()
    work.load_state_dict(net.state_dict())
    frozen = case.fresh()
    frozen.load_state_dict(net.state_dict())
    problem = Problem(
        model=work, original=frozen.eval().requires_grad_(False), forget=parts.forget,
        retain=parts.retain, task=TASK, recipe=case.recipe, training=case.train_model,
        fresh=case.fresh,
    )  # fmt: skip
    return method.apply(problem, Runtime(seed=seed)).state_dict()


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("flwr").setLevel(logging.ERROR)


# the same bits


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("order", [1, -1])
def test_active_forgetting_has_the_bits_of_the_method_in_process(request_name, order):
    case, net = case_of(), start_model()
    grid = LocalGrid(app_of(), 10, order=order)
    strategy = FedAFStrategy(request_name, federation(), METHOD, seed=5)
    got = run(strategy, grid, net, strategy.rounds)
    want = in_process(METHOD, case, net, REQUESTS[request_name], 5)
    assert strategy.rounds == 4
    assert same(got, want)
    assert not same(got, net.state_dict())


def test_retraining_has_the_bits_of_rounds_without_the_client():
    case, net = case_of(), start_model()
    got = run(RetrainStrategy("client", federation(), seed=5), LocalGrid(app_of(), 10), net, 4)
    clients = rows_by_client(case.partition(Client(3)).retain)
    train_in_rounds(net, clients, TASK, federation(), Runtime(seed=5))
    assert same(got, net.state_dict())


@pytest.mark.parametrize("request_name", ["client", "class"])
def test_fed_eraser_has_the_bits_of_the_method_in_process(request_name):
    net, history = start_model(), MemoryHistory(every=2)
    trained = case_of().fresh()
    record = FedEraserStrategy("", federation(), history, trained, seed=5)
    run(record, LocalGrid(app_of(), 10), net, 4)
    erase = FedEraserStrategy(request_name, federation(), history, trained, seed=5)
    done = erase.start(
        LocalGrid(app_of(), 10), erase.initial_arrays, num_rounds=len(erase.stored)
    )
    case = case_of()
    case = federated_case(toy_case(TASK), federation(), clients=case.train.group, history=history)
    want = in_process(FedEraser(), case, trained, REQUESTS[request_name], 5)
    assert same(done.arrays.to_torch_state_dict(), want)


def test_recording_has_the_bits_of_training_in_process():
    net, history, trained = start_model(), MemoryHistory(every=1), case_of().fresh()
    run(FedEraserStrategy("", federation(), history, trained), LocalGrid(app_of(), 10), net, 4)
    train_in_rounds(net, rows_by_client(View.all(case_of().train)), TASK, federation(), Runtime())
    assert same(trained.state_dict(), net.state_dict())
    assert len(list(history.rounds(history.find(trained)))) == 4


def test_without_unlearning_rounds_it_is_fedavg_in_every_bit():
    net, none = start_model(), METHOD.model_copy(update={"rounds": 0})
    plain = FedAvg(fraction_evaluate=0.0)
    ours = FedAFStrategy("client", federation(), none)
    results = []
    for strategy in (plain, ours):
        grid = LocalGrid(app_of(2), 2)
        # FedAvg draws the order of nodes; two addends have one sum in either order
        results.append(run(strategy, grid, net, 3))
    assert same(*results)
    assert not same(results[0], net.state_dict())


@pytest.mark.slow
def test_flowers_simulation_has_the_bits_of_the_methods_in_process():
    """One run of the engine: FedAvg, zero unlearning rounds, active forgetting, retraining."""
    net, found = start_model(), {}
    none = METHOD.model_copy(update={"rounds": 0})
    server = ServerApp()

    @server.main()
    def main(grid, context):
        arrays = ArrayRecord(net.state_dict())
        af = FedAFStrategy("client", federation(), METHOD, seed=5, min_available_nodes=2)
        runs = {
            "fedavg": (FedAvg(fraction_evaluate=0.0), 2),
            "zero": (FedAFStrategy("client", federation(), none), 2),
            "forgetting": (af, af.rounds),
            "retrain": (RetrainStrategy("class", federation(), seed=5), 4),
        }
        for name, (strategy, rounds) in runs.items():
            done = strategy.start(grid, arrays, num_rounds=rounds)
            found[name] = done.arrays.to_torch_state_dict()

    global REQUESTS
    run_simulation(
        server, app_of(2), num_supernodes=2,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )  # fmt: skip
    assert same(found["fedavg"], found["zero"])
    case = case_of(2)
    method = METHOD
    REQUEST = Client(1)
    del REQUEST
    want = case_of(2).fresh()
    want.load_state_dict(net.state_dict())
    retain = rows_by_client(case.partition(uk.Classes(1)).retain)
    train_in_rounds(want, retain, TASK, federation(), Runtime(seed=5))
    assert same(found["retrain"], want.state_dict())
    del method
