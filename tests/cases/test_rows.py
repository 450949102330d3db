"""Where the rows of built-in cases come from is as they declare."""

import os
import subprocess
import sys

from unlearnkit import catalog

OWN = {i for i, case in catalog.cases().items() if case.rows != "read"}
PROBE = """
import os, sys, sysconfig

import sklearn.datasets, sklearn.model_selection, torch, unlearnkit
from unlearnkit import catalog
from unlearnkit.cases.registry import Trained

known = sysconfig.get_paths()
inside = [known[k] for k in ("stdlib", "purelib", "platlib")]
inside += map(os.path.abspath, unlearnkit.__path__)
system = ("/proc/", "/sys/", "/dev/", "/etc/")


def watch(event, args):
    if event == "open" and isinstance(args[0], str) and os.path.isfile(args[0]):
        if not os.path.abspath(args[0]).startswith((*inside, *system)):
            print(args[0])
    if event.startswith(("socket.connect", "socket.getaddrinfo", "urllib.")):
        print(event, args)


sys.addaudithook(watch)
for name in sys.argv[1:]:
    case = catalog.cases()[name]
    case.make()
    for ask in case.requests.values():
        if not isinstance(ask, Trained):
            ask()
"""


def test_bundled_and_drawn_cases_are_told_from_those_that_read():
    assert {"digits", "breast_cancer", "diabetes", "demand"} <= OWN
    assert not {"cifar10", "california_housing", "etth1", "sts"} & OWN


def test_rows_that_are_installed_or_drawn_are_read_from_nowhere_else(tmp_path):
    place = {k: v for k, v in os.environ.items() if k != "UNLEARNKIT_DATA"}
    place |= {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", PROBE, *sorted(OWN)]
    done = subprocess.run(words, env=place, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
