"""Files from elsewhere: refused or bounded before they are built, and never quoted."""

import json
import os
import resource
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

from unlearnkit.checkpoint import load_weights
from unlearnkit.core.bounded_yaml import DEEPEST, MOST_VALUES, parse_yaml
from unlearnkit.core.case import Case
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import MOST_BYTES, check_writable, read_text, read_yaml
from unlearnkit.core.key_words import MOST_NUMBERS
from unlearnkit.core.request import MOST_GIVEN, Rows, parse_request
from unlearnkit.job import parse_settings, read_job
from unlearnkit.localize.mask import Mask
from unlearnkit.oracles import MOST
from unlearnkit.studies.spec import load, make_study
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case


def laughs(open_, close, last):
    """Return ten to the eighth leaves in a few lines."""
    first = f"a0: &a0 {open_}{last}{close}\n"
    more = ",".join(["{}"] * 10)
    return first + "".join(
        f"a{i}: &a{i} {open_}{more.replace('{}', f'*a{i - 1}')}{close}\n" for i in range(1, 9)
    )


BOMBS = {
    "lists": (laughs("[", "]", "x"), "more than 250,000 values"),
    "merges": (laughs("{<<: [", "]}", "{k: 1}"), "more than 250,000 values"),
    "one long text, repeated": (
        f"a: &a {'x' * 10**6}\nb: [{','.join(['*a'] * 100)}]",
        "more than 250,000 values",
    ),
    "itself": ("a: &a [1, *a]", "a value that holds itself"),
    "deep lists": ("[" * 20_000, f"more than {DEEPEST} lists and mappings"),
    "deep mappings": ("{a: " * 20_000, f"more than {DEEPEST} lists and mappings"),
}


@pytest.mark.parametrize(("text", "told"), BOMBS.values(), ids=BOMBS)
def test_a_text_that_stands_for_too_much_is_refused_wherever_yaml_is_read(tmp_path, text, told):
    with pytest.raises(ValueError, match=told):
        parse_yaml(text)
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    for read in (read_job, load):
        with pytest.raises(InputError, match=told) as error:
            read(path)
        assert len(str(error.value)) < 300
    with pytest.raises(InputError, match=told) as error:
        parse_settings([f"x={text}"])
    assert len(str(error.value)) < 300


def test_aliases_and_long_lists_of_ordinary_size_are_read():
    assert parse_yaml("a: &a {lr: 1}\nb: {<<: *a, n: 2}\nc: [*a, *a]")["b"] == {"lr": 1, "n": 2}
    rows = ",".join(map(str, range(20_000)))
    assert len(parse_yaml(f"rows: [{rows}]")["rows"]) == 20_000
    assert parse_yaml("") is None
    assert MOST_VALUES > 50_000


@pytest.mark.parametrize(
    "text", ["9" * 6000, "x: 2020-13-45", "? [1]\n: 2", "x: \x00", "!!python/name:os.system x"]
)
def test_what_is_no_plain_yaml_is_told_in_a_line(text):
    with pytest.raises(ValueError, match=r".") as error:
        parse_yaml(text)
    assert len(str(error.value)) < 200


SECRET = "hunter2hunter2"
KEYS = {
    "key": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n-----END KEY-----\n",
    "passwords": f"root:{SECRET}:0:0::/:/bin/sh\n",
    "ini": f"[default]\naws_key = {SECRET}\n",
    "alias": f"*{SECRET}\n",
    "tag": f"!{SECRET} x\n",
    "quote": f"a: '{SECRET}\n",
    "flow": f"a: [{SECRET} {{{SECRET}\n",
    "list": f"- {SECRET}\n",
    "json": f'{{"a": "{SECRET}" x}}',
}


TOY = toy_case(Classification(3))
KEYED = Case(
    train=(TOY.train.x, TOY.train.y),
    task="classification",
    keys=[f"a{i}" for i in range(len(TOY.train))],
    group=["ann", *["ben"] * (len(TOY.train) - 1)],
)


@pytest.mark.parametrize("content", KEYS.values(), ids=KEYS)
def test_a_file_that_was_named_by_mistake_is_never_quoted(tmp_path, content):
    for name in ("id_rsa", "run.json", "weights.pt", "weights.safetensors"):
        (tmp_path / name).write_text(content)
    readers = [
        lambda: parse_request(f"class=@{tmp_path / 'id_rsa'}"),
        lambda: TOY.partition(parse_request(f"rows=@{tmp_path / 'id_rsa'}")),
        lambda: KEYED.partition(parse_request(f"rows=@{tmp_path / 'id_rsa'}")),
        lambda: KEYED.partition(parse_request(f"group=@{tmp_path / 'id_rsa'}")),
        lambda: read_job(tmp_path / "id_rsa"),
        lambda: read_job(tmp_path / "run.json"),
        lambda: load(tmp_path / "id_rsa"),
        lambda: load_weights(nn.Linear(2, 2), tmp_path / "weights.pt"),
        lambda: load_weights(nn.Linear(2, 2), tmp_path / "weights.safetensors"),
        lambda: Mask.load(tmp_path / "weights.safetensors"),
    ]
    for read in readers:
        with pytest.raises(InputError) as error:
            read()
        assert SECRET[:6] not in str(error.value)


@pytest.fixture
def pipe(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_pipe_or_a_device_is_never_opened(pipe):
    for path in (pipe, "/dev/zero"):
        for read in (
            lambda p: load_weights(nn.Linear(2, 2), p),
            Mask.load,
            lambda p: parse_request(f"rows=@{p}"),
            lambda p: read_job(type(pipe)(p)),
            lambda p: load(type(pipe)(p)),
        ):
            with pytest.raises(InputError, match="it is a pipe or a device; name a"):
                read(path)


def test_a_file_of_words_has_a_limit(tmp_path):
    path = tmp_path / "long"
    with path.open("wb") as f:
        f.truncate(MOST_BYTES + 1)
    with pytest.raises(InputError, match=r"has more than 33,554,432 bytes; give a shorter file"):
        read_text(path, "job")


def test_numbers_are_counted_before_they_are_built():
    assert len(parse_request(f"rows=0:{MOST_NUMBERS}").rows) == MOST_NUMBERS
    for words in ("rows=0:100000000", f"rows=0:{MOST_NUMBERS},7"):
        with pytest.raises(InputError, match="at most 1,000,000 numbers in words"):
            parse_request(words)
    with pytest.raises(InputError, match=r"at most 10,000,000 numbers, got 10,000,001"):
        Rows(range(MOST_GIVEN + 1))
    with pytest.raises(InputError, match="at most 10,000,000 numbers"):
        Rows(range(10**30))


@pytest.mark.parametrize(
    "more",
    [{"seeds": 10**9}, {"oracles": 10**9}, {"models": 10**9}, {"seeds": list(range(10**5))}],
    ids=str,
)
def test_counts_of_a_study_have_limits(more):
    words = {"name": "s", "cases": ["digits"], "requests": ["class=3"], "methods": ["finetune"]}
    with pytest.raises(InputError, match=r"^study: .*") as error:
        make_study({**words, **more})
    assert len(str(error.value)) < 300


def test_so_many_oracles_are_refused_before_they_are_listed():
    import unlearnkit as uk

    with pytest.raises(InputError, match="at most 100,000 models at a time, got 1,000,000,000"):
        uk.oracle(toy_case(Classification(3)), "rows=0", seeds=10**9)
    assert MOST == 100_000


class Asks:
    def __reduce__(self):
        return bytearray, (2 * 10**9,)


@pytest.fixture
def bombs(tmp_path):
    """Return small files that torch would make gigabytes of."""
    torch.save({"w": torch.zeros(5 * 10**6)}, tmp_path / "flat.pt")
    with (
        zipfile.ZipFile(tmp_path / "flat.pt") as flat,
        zipfile.ZipFile(tmp_path / "zip.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for part in flat.infolist():
            packed.writestr(part.filename, flat.read(part))
    torch.save({"w": Asks()}, tmp_path / "asks.pt")
    torch.save({"w": Asks()}, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    return {
        tmp_path / "zip.pt": "compressed, which torch.save never does",
        tmp_path / "asks.pt": "holds more than weights",
        tmp_path / "legacy.pt": "holds more than weights",
    }


def test_weights_take_no_more_memory_than_their_file(bombs):
    for path, told in bombs.items():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(InputError, match=told):
            load_weights(nn.Linear(2, 2), path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # KiB


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_with_an_optimizer_are_still_read(tmp_path, zipped):
    net = nn.Linear(4, 2)
    net(torch.ones(1, 4)).sum().backward()
    optimizer = torch.optim.Adam(net.parameters())
    optimizer.step()
    content = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    got = load_weights(nn.Linear(4, 2), tmp_path / "w.pt")
    assert torch.equal(got.weight, net.weight)


PEAK = """
import json, pathlib, sys
from unlearnkit.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["unlearnkit", *words]
    try:
        main()
    except SystemExit as e:
        assert e.code == 1
# Not ru_maxrss, which begins with the peak of the process that started this one.
status = pathlib.Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def test_the_command_line_stays_small_and_says_so_in_a_short_line(tmp_path):
    (tmp_path / "bomb.yaml").write_text(BOMBS["lists"][0])
    commands = [
        ["unlearn", "digits", "--forget", "rows=0:100000000"],
        ["unlearn", "digits", "--forget", "rows=@/dev/zero"],
        ["unlearn", "digits", "--forget", "class=3", "-p", f"x={'[' * 30_000}"],
        ["study", "plan", "bomb.yaml"],
    ]
    code = [sys.executable, "-c", PEAK, json.dumps(commands)]
    done = subprocess.run(code, check=False, capture_output=True, text=True, cwd=tmp_path)
    lines = done.stderr.splitlines()
    assert len(lines) == len(commands), done.stderr
    assert max(map(len, lines)) <= 300
    assert int(done.stdout) < 2**20  # KiB; torch itself is about half of it


def test_a_link_that_leads_nowhere_is_no_place(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "none")
    for path in (tmp_path / "a", tmp_path / "a" / "b" / "c"):
        with pytest.raises(InputError, match="is a link that leads nowhere; remove it"):
            check_writable(path, "out")
    check_writable(tmp_path / "new" / "folders" / "x", "out")
    assert not (tmp_path / "new").exists()


def test_a_record_is_read_as_json(tmp_path):
    (tmp_path / "run.json").write_text('{"job": {"case": "digits", "seed": 1e2}}')
    assert read_yaml(tmp_path / "run.json", "job", "case")["job"]["seed"] == 100
    (tmp_path / "run.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="is no JSON that can be used"):
        read_yaml(tmp_path / "run.json", "job", "case")
