"""The contract of methods and metrics as functions that fail: for this package and for plug-ins.

``check_method(MyMethod)`` and ``check_metric("my_metric")`` raise ``ContractError`` with a sentence
that says what does not hold; the tests of a plug-in need no more than these two calls.
"""

from unlearnkit.testing.methods import check_method as check_method
from unlearnkit.testing.metrics import check_metric as check_metric
from unlearnkit.testing.subject import ContractError as ContractError
from unlearnkit.testing.toy_cases import register_toy_case as register_toy_case
from unlearnkit.testing.toy_cases import toy_case as toy_case
