"""Results of benchmarks are kept whole: what ran goes on, what did not run stays."""

from benchmarks.__main__ import PAGE, TITLE, benchmark_modules, page, section, sections
from benchmarks.measure import Fact


def test_the_sections_of_the_committed_page_are_read_and_written_as_they_are(monkeypatch):
    text = PAGE.read_text(encoding="utf-8")
    held = sections(text)
    monkeypatch.setattr("benchmarks.__main__.head", lambda: held[TITLE])
    assert len(held) > 5
    assert page({title: body for title, body in held.items() if title != TITLE}) == text


def test_a_section_that_ran_takes_the_place_of_its_old_one():
    held = {"a": section([Fact("x", 1.0)]), "b": section([Fact("y", 2.0)])}
    again = sections(page(held))
    again["a"] = section([Fact("x", 3.0)])
    assert "| x | 3 |" in page(again)
    assert "| y | 2 |" in page(again)
    assert "| x | 1 |" not in page(again)


def test_a_module_that_only_imports_a_function_run_is_no_benchmark():
    known = benchmark_modules()
    assert {"bad_teacher", "images", "studies"} <= set(known)
    assert not {"measure", "problems"} & set(known)
