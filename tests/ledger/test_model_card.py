"""The section of a model card: true to the ledger, and the rest of the card stays as it was."""

import pytest
import yaml

from unlearnkit.core.errors import InputError

pytest.importorskip("cryptography")

from unlearnkit.ledger.model_card import BEGIN, END, renew, write_card


def metadata(text):
    return yaml.safe_load(text.split("---")[1])


@pytest.fixture(scope="module")
def facts():
    return {"deletions": 1, "verdict": "INCONCLUSIVE"}


def test_a_new_card_says_what_the_ledger_recorded(ledger, tmp_path):
    ledger.request("rows=a0003,a0009", id="one", reason="Art. 17(1)(b)")
    ledger.run()
    text = write_card(ledger.folder, tmp_path / "card").read_text()
    (done,), (attempt,) = ledger.entries("certificate"), ledger.entries("attempt")
    said = metadata(text)["unlearning"]
    assert said["certificate_sha256"] == done.body["certificate"]
    assert said["weights_sha256"] == attempt.body["files"]["model.safetensors"]
    assert (said["deletions"], said["rows_removed"]) == (1, 2)
    assert said["verdict"] == attempt.body["verdict"]
    assert "2 rows of training data were removed" in text
    for power in attempt.body["power"].values():
        assert power in text
    for limit in attempt.body["limits"]:
        assert f"- {limit}" in text
    assert attempt.body["evidence"]["why"] in text
    assert not any(word in text for word in ("a0003", "Art. 17"))


def test_a_later_deletion_renews_the_section_and_nothing_else(ledger, tmp_path):
    card = tmp_path / "README.md"
    card.write_text(
        "---\n# ours\nlicense:   mit\ntags: [a,\n  b]\n---\n\n# Digits\n\nMade with care.  \n"
    )
    ledger.request("rows=a0003")
    ledger.run()
    write_card(ledger.folder, tmp_path)
    first = card.read_text()
    before, after = first.split(BEGIN)[0], "\n\n## Licence\nMIT\n"
    card.write_text(first + after)
    ledger.request("rows=a0007")
    ledger.run()
    write_card(ledger.folder, tmp_path)
    text = card.read_text()
    assert text.endswith(f"{END}\n{after}")
    assert text.split("unlearning:")[0] == before.split("unlearning:")[0]
    assert "# Digits\n\nMade with care.  \n" in text
    assert (text.count(BEGIN), text.count("## Unlearning"), text.count("unlearning:")) == (1, 1, 1)
    assert metadata(text)["unlearning"]["deletions"] == 2
    assert metadata(text)["tags"] == ["a", "b"]
    write_card(ledger.folder, tmp_path)
    assert card.read_text() == text


CARDS = [
    "",
    "# Title",
    "# Title\n\ntext\n",
    "---\n---\n",
    "---\nlicense: mit\n---",
    "---\r\nlicense: mit\r\n---\r\n# Title\r\n",
    "---\nunlearning:\n  old: 1\n  list:\n  - a\nlicense: mit\n---\ntext\n---\nmore\n",
    f"{BEGIN}\nold\n{END}",
    f"a\n{BEGIN}{END}\nb\n",
]


@pytest.mark.parametrize("card", CARDS)
def test_a_card_of_any_form_keeps_the_rest_and_is_renewed_in_place(card, facts):
    text = renew(card, facts, "section")
    assert metadata(text)["unlearning"] == facts
    assert renew(text, facts, "section") == text
    line = "\r\n" if "\r\n" in card else "\n"
    assert f"{BEGIN}{line}section{line}{END}" in text
    assert "old" not in text
    left = card.replace(BEGIN, "").replace(END, "").replace("old", "")
    assert all(word in text for word in left.split() if word not in {"---", ":", "1", "list:"})
    assert "\n" not in text.replace("\r\n", "") if line == "\r\n" else "\r" not in text
    if "license" in card:
        assert metadata(text)["license"] == "mit"


@pytest.mark.parametrize(
    ("card", "error"),
    [
        (f"{BEGIN}\ntext", "needs one"),
        (f"{END}{BEGIN}", "needs one"),
        (f"{BEGIN}{END}{BEGIN}{END}", "needs one"),
        ("---\na: [\n---\n", "its metadata are no YAML: line"),
        ("---\njust words\n---\n", "its metadata hold no keys"),
    ],
)
def test_a_card_that_cannot_be_renewed_safely_is_left_alone(card, error, facts):
    with pytest.raises(InputError, match=f"card: {error}"):
        renew(card, facts, "section")


def test_before_the_first_deletion_there_is_no_card(ledger, tmp_path):
    with pytest.raises(InputError, match="no deletion is published yet"):
        write_card(ledger.folder, tmp_path)
    assert not (tmp_path / "README.md").exists()
