"""Flower adapter: the same bits as in process, on Flower's own messages and its simulation."""

import logging
import subprocess
import sys
from functools import partial

import pytest
import torch

import unlearnkit as uk

flwr = pytest.importorskip("flwr", reason="Flower is not installed: make test-federated")

from flwr.app import (  # noqa: E402
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp  # noqa: E402
from flwr.serverapp import Grid, ServerApp  # noqa: E402
from flwr.serverapp.strategy import FedAvg  # noqa: E402
from flwr.simulation import run_simulation  # noqa: E402
from flwr.supercore.task_identity import TaskIdentity  # noqa: E402

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
METHOD = FederatedActiveForgetting(rounds=2, repair=0.5, local_epochs=3, strength=1)
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
    return app_with(partial(setup, clients=clients, settings=tuple(settings.items())))


def app_with(make):
    app = ClientApp(mods=[unlearning_mod(make)])
    app.train()(train_function(make))
    return app


class LocalGrid(Grid):
    """Delivers messages in this process, in any order, and loses those of some clients."""

    def __init__(self, app, clients, *, lose=(), order=1):
        self.app, self.lose, self.order = app, set(lose), order
        self.contexts = {
            100 + 7 * k: Context(
                run_id=1, node_id=100 + 7 * k, node_config={"partition-id": k},
                state=RecordDict(), run_config={},
            )
            for k in range(clients)
        }  # fmt: skip
        self.log, self.spare = [], "discover"

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
            if client in self.lose and phase != self.spare:
                replies.append(Message(Error(code=0, reason="left"), reply_to=m))
                continue
            replies.append(self.app(m, context))
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
        retain=parts.retain, validation=None, task=TASK, recipe=case.recipe,
        training=case.train_model, build=case.fresh,
    )  # fmt: skip
    return method.apply(problem, Runtime(seed=seed)).state_dict()


@pytest.fixture(autouse=True)
def server_process():
    """Flower sets these where a ServerApp runs."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


# the same bits


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize(("order", "strength"), [(1, 1.0), (-1, 1.0), (1, 0.0)])
def test_active_forgetting_has_the_bits_of_the_method_in_process(request_name, order, strength):
    case, net = case_of(), start_model()
    grid = LocalGrid(app_of(), 10, order=order)
    how = METHOD.model_copy(update={"strength": strength})
    strategy = FedAFStrategy(request_name, federation(), how, seed=5)
    got = run(strategy, grid, net, strategy.rounds)
    want = in_process(how, case, net, REQUESTS[request_name], 5)
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
    done = erase.start(LocalGrid(app_of(), 10), erase.initial_arrays, num_rounds=len(erase.stored))
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


def test_trainings_of_other_rounds_stand_beside_each_other_in_a_history():
    history, models = MemoryHistory(every=1), {}
    for rounds in (4, 3):
        how = federation(rounds=rounds)
        models[rounds] = case_of().fresh()
        strategy = FedEraserStrategy("", how, history, models[rounds])
        run(strategy, LocalGrid(app_of(), 10), start_model(), rounds)
    for rounds, trained in models.items():
        assert len(list(history.rounds(history.find(trained)))) == rounds


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


RAY = """
import ray
ray.init(num_cpus=1, include_dashboard=False)
ray.get(ray.remote(lambda: 1).remote())
"""
# A task that does nothing. Where Ray cannot run it, Flower's simulation waits for ever.


def ray_is_missing():
    """Return why Ray runs nothing on this machine; empty where it does."""
    if " " in sys.executable:
        return f"Ray starts no worker from a path with a space: {sys.executable}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", RAY], capture_output=True, text=True, timeout=90, check=False
        )
    except subprocess.TimeoutExpired:
        return "Ray ran no task within 90 seconds"
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of Flower and Ray
def test_flowers_simulation_has_the_bits_of_the_methods_in_process(monkeypatch):
    """One run of the engine: FedAvg, zero unlearning rounds, active forgetting, retraining."""
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "120000")
    if why := ray_is_missing():
        pytest.skip(why)
    net, found = start_model(), {}
    none = METHOD.model_copy(update={"rounds": 0})
    server = ServerApp()

    @server.main()
    def main(grid, context):
        arrays = ArrayRecord(net.state_dict())
        forgetting = FedAFStrategy("class", federation(), METHOD, seed=5)
        runs = {
            "fedavg": (FedAvg(fraction_evaluate=0.0), 2),
            "zero": (FedAFStrategy("client", federation(), none), 2),
            "forgetting": (forgetting, forgetting.rounds),
            "retrain": (RetrainStrategy("class", federation(), seed=5), 4),
        }
        for name, (strategy, rounds) in runs.items():
            done = strategy.start(grid, arrays, num_rounds=rounds)
            found[name] = done.arrays.to_torch_state_dict()

    backend = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"include_dashboard": False},
    }
    run_simulation(server, app_of(2), num_supernodes=2, backend_config=backend)
    case = case_of(2)
    retain = rows_by_client(case.partition(uk.Classes(1)).retain)
    want = case.fresh()
    want.load_state_dict(net.state_dict())
    train_in_rounds(want, retain, TASK, federation(), Runtime(seed=5))
    assert same(found["fedavg"], found["zero"])
    assert same(found["forgetting"], in_process(METHOD, case, net, uk.Classes(1), 5))
    assert same(found["retrain"], want.state_dict())


# what is sent, and what is kept


def test_clients_of_the_request_forget_and_the_others_train():
    grid, net = LocalGrid(app_of(), 10), start_model()
    strategy = FedAFStrategy("client", federation(), METHOD)
    run(strategy, grid, net, strategy.rounds)
    sent = [x for x in grid.log if x[1] not in {"discover", "fisher"}]
    assert [x for x in sent if x[0] == 3] == [(3, "forget", 0), (3, "forget", 1)]
    assert sum(x[1] == "train" for x in sent) == 4 * 9
    assert [x[0] for x in grid.log if x[1] == "fisher"] == [k for k in range(10) if k != 3]


def test_no_fisher_is_sent_where_clients_keep_rows():
    grid = LocalGrid(app_of(), 10)
    run(FedAFStrategy("class", federation(), METHOD), grid, start_model(), 1)
    assert not [x for x in grid.log if x[1] == "fisher"]


def test_what_a_client_prepared_is_kept_between_rounds_and_then_deleted():
    grid, net = LocalGrid(app_of(), 10), start_model()
    strategy = FedAFStrategy("client", federation(), METHOD)
    run(strategy, grid, net, 1)
    assert set(grid.contexts[121].state) == {
        "unlearnkit/" + n for n in ("memory", "fisher", "anchor")
    }
    run(strategy, grid, net, 2)
    assert not grid.contexts[121].state


def test_a_client_that_left_gets_no_message_of_retraining():
    grid = LocalGrid(app_of(), 10)
    run(RetrainStrategy("client", federation()), grid, start_model(), 4)
    assert not [x for x in grid.log if x[0] == 3 and x[1] != "discover"]


def test_discovery_sends_counts_and_no_label():
    app, grid = app_of(), LocalGrid(app_of(), 10)
    strategy = FedAFStrategy("class", federation(), METHOD)
    nodes = strategy.discover(grid)
    parts = case_of().partition(uk.Classes(1))
    want = {k: len(v) for k, v in rows_by_client(parts.forget).items()}
    assert {k: n.forget for k, n in nodes.items()} == want
    message = strategy._message(100, {}, {"phase": "discover", "request": "class", "seed": 0})
    metrics = app(message, grid.contexts[100]).content["metrics"]
    assert set(metrics) == {"client", "n-forget", "n-retain"}


def test_messages_of_others_pass_the_mod():
    seen = []
    app = ClientApp(mods=[unlearning_mod(setup)])

    @app.train()
    def train(message, context):
        seen.append(message)
        return Message(message.content, reply_to=message)

    grid = LocalGrid(app, 1)
    content = RecordDict({"config": ConfigRecord({"server-round": 1})})
    grid.send_and_receive([Message(content, message_type="train", dst_node_id=100)])
    assert len(seen) == 1


# bad input


def test_a_client_that_drops_out_is_not_in_the_mean():
    net = start_model()
    lost = LocalGrid(app_of(), 10, lose=[4])
    got = run(RetrainStrategy("client", federation(), seed=5), lost, net, 4)
    clients = rows_by_client(case_of().partition(Client(3)).retain)
    del clients[4]
    train_in_rounds(net, clients, TASK, federation(), Runtime(seed=5))
    assert same(got, net.state_dict())


def test_a_round_in_which_all_drop_out_leaves_the_model():
    net = start_model()
    grid = LocalGrid(app_of(), 10, lose=range(10))
    done = RetrainStrategy("client", federation()).start(
        grid, ArrayRecord(net.state_dict()), num_rounds=1
    )
    assert not done.arrays


BAD = ((5, LOCAL.model_copy(update={"lr": 1e30})),)


def test_an_update_that_is_not_finite_is_refused_by_name():
    grid = LocalGrid(app_of(client_recipes=BAD), 10)
    with pytest.raises(DivergedError, match=r"0\.weight of client 5 in round 0"):
        run(RetrainStrategy("client", federation()), grid, start_model(), 1)


def test_an_update_that_is_not_finite_is_left_out_by_choice():
    grid = LocalGrid(app_of(client_recipes=BAD), 10)
    strategy = RetrainStrategy("client", federation(non_finite="leave_out"))
    got = run(strategy, grid, start_model(), 1)
    assert all(torch.isfinite(t).all() for t in got.values())


def test_a_history_of_other_models_is_refused():
    with pytest.raises(InputError, match="no training that led to this model"):
        FedEraserStrategy("client", federation(), MemoryHistory(), start_model())


def test_a_client_of_another_architecture_is_named():
    app = ClientApp(mods=[unlearning_mod(setup)])
    honest = train_function(setup)

    @app.train()
    def train(message, context):
        reply = honest(message, context)
        if context.node_config["partition-id"] == 2:
            reply.content["arrays"] = ArrayRecord(torch.nn.Linear(6, 3).state_dict())
        return reply

    with pytest.raises(InputError, match="client 2 has another architecture than client 0"):
        run(RetrainStrategy("client", federation()), LocalGrid(app, 10), start_model(), 1)


def test_a_client_that_answers_without_weights_is_named():
    app = ClientApp(mods=[unlearning_mod(setup)])

    @app.train()
    def train(message, context):
        return Message(RecordDict({"metrics": MetricRecord({"n": 1})}), reply_to=message)

    with pytest.raises(InputError, match="client 0 answered without 'arrays'"):
        run(RetrainStrategy("client", federation()), LocalGrid(app, 10), start_model(), 1)


def test_no_answer_at_all_is_an_error():
    grid = LocalGrid(app_of(), 10, lose=range(10))
    grid.spare = ""
    with pytest.raises(InputError, match="no client answered"):
        run(RetrainStrategy("client", federation()), grid, start_model(), 1)


def nobody(context, request):
    return setup(context, "")


def test_a_request_that_no_client_has_is_refused():
    app = app_with(nobody)
    with pytest.raises(InputError, match="no client has rows of request 'nobody'"):
        run(RetrainStrategy("nobody", federation()), LocalGrid(app, 10), start_model(), 1)


def everybody(context, request):
    me = setup(context, "")
    return ClientSetup(
        client=me.client, data=me.data, forget=torch.ones_like(me.forget), fresh=me.fresh,
        task=TASK, federation=me.federation,
    )  # fmt: skip


def test_a_request_for_all_clients_is_refused():
    app = app_with(everybody)
    with pytest.raises(InputError, match="all rows of all clients"):
        run(RetrainStrategy("all", federation()), LocalGrid(app, 10), start_model(), 1)


def twins(context, request):
    me = setup(context, request)
    return ClientSetup(
        client=0, data=me.data, forget=me.forget, fresh=me.fresh, task=TASK,
        federation=me.federation,
    )  # fmt: skip


def test_two_nodes_of_one_number_are_refused():
    app = app_with(twins)
    with pytest.raises(InputError, match="two nodes say that they are client 0"):
        run(RetrainStrategy("client", federation()), LocalGrid(app, 10), start_model(), 1)


def test_statistics_that_clients_would_have_to_keep_are_refused():
    with pytest.raises(InputError, match="batch_norm='local'"):
        RetrainStrategy("client", federation(batch_norm="local"))
