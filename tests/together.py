"""Many short checks of one kind in one test, which tells every one that fails."""


def check_each(cases, check):
    """Call ``check`` on every case, and raise all that fails together.

    Args:
        cases: What to check, each with a ``repr`` that tells which it is.
        check: A function of a case; whatever it raises is a failure of this case.

    Raises:
        ExceptionGroup: Of what failed, each with its case as a note.
    """
    cases, failed = list(cases), []
    assert cases, "there is nothing to check"
    for case in cases:
        try:
            check(case)
        except Exception as e:  # noqa: BLE001  # told below
            e.add_note(f"case: {case!r}")
            failed.append(e)
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(cases)} cases fail", failed)
