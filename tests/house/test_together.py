"""Checks that share a test are all made, and each failure is told with its case."""

import pytest

from tests.together import check_each


def test_every_case_is_checked_and_each_failure_is_named():
    seen = []

    def check(case):
        seen.append(case)
        assert case % 2, "even"

    with pytest.raises(ExceptionGroup, match=r"2 of 4 cases fail") as group:
        check_each([1, 2, 3, 4], check)
    assert seen == [1, 2, 3, 4]
    assert [e.__notes__ for e in group.value.exceptions] == [["case: 2"], ["case: 4"]]


def test_nothing_fails_where_every_case_holds_and_no_cases_are_no_check():
    check_each([1, 3], lambda case: None)
    with pytest.raises(AssertionError, match="nothing to check"):
        check_each([], lambda case: None)
