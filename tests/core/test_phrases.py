"""Requests for a phrase of a text: every window that holds a part of it is corrected."""

import pytest
import torch

import unlearnkit as uk
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.request import parse_request

TEXT = torch.tensor([1, 2, 3, 4, 5, 1, 2, 9, 9, 3, 4, 5, 0, 1])
WIDTH = 4


def windows(text):
    return text.unfold(0, WIDTH, 1)[:-1].contiguous(), text[WIDTH:]


def case_of(text=TEXT):
    return uk.Case(train=windows(text), test=windows(text), task=uk.Classification(10))


REQUEST = uk.Features(phrase=(3, 4, 5), replacement=(7, 8, 6))


def test_windows_and_next_tokens_are_those_of_the_text_with_the_replacement():
    case = case_of()
    parts = case.partition(REQUEST)
    changed = torch.tensor([1, 2, 7, 8, 6, 1, 2, 9, 9, 7, 8, 6, 0, 1])
    x, y = windows(changed)
    assert torch.equal(parts.retain.data.x, x)
    assert torch.equal(parts.retain.data.y, y)
    differ = (x != case.train.x).any(1) | (y != case.train.y)
    assert parts.forget.rows.tolist() == differ.nonzero()[:, 0].tolist()
    assert torch.equal(parts.corrections.rows, parts.forget.rows)
    assert torch.equal(case.train.x, windows(TEXT)[0])


def test_every_window_with_a_token_of_the_phrase_is_corrected():
    text = torch.arange(40) % 3
    text[20:22] = torch.tensor([8, 9])
    parts = case_of(text).partition(uk.Features(phrase=(8, 9), replacement=(0, 0)))
    assert len(parts.forget) == 2 + WIDTH


def test_the_text_in_use_keeps_the_phrase():
    case = case_of()
    assert case.partition(REQUEST).as_used(case.test) is case.test


def test_words_and_records_of_a_phrase_mean_the_request_again():
    assert REQUEST.words == "phrase=3,4,5,replacement=7,8,6"
    assert parse_request(REQUEST.words) == REQUEST
    assert parse_request(REQUEST.model_dump(mode="json")) == REQUEST


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"phrase": (3, 4), "replacement": (1,)}, "2 tokens has a replacement of 1"),
        ({"phrase": (3,), "replacement": (1,), "tokens": 3}, "one of the four"),
        ({"phrase": (3,), "replacement": (1,), "rows": [2]}, "leave out rows and value"),
        ({"phrase": (3,), "replacement": (1,), "value": 2}, "leave out rows and value"),
        ({"tokens": 3, "replacement": (1,)}, "0 tokens has a replacement of 1"),
    ],
)
def test_a_phrase_has_a_replacement_of_its_length_and_nothing_else(given, told):
    with pytest.raises(InputError, match=told):
        uk.Features(**given)


@pytest.mark.parametrize("phrase", [(4, 3), tuple(range(30))])
def test_a_phrase_that_is_not_there_is_refused(phrase):
    with pytest.raises(InputError, match="does not stand in the training text"):
        case_of().partition(uk.Features(phrase=phrase, replacement=phrase))


def test_a_replacement_that_no_model_predicts_is_refused():
    with pytest.raises(InputError, match="replacement"):
        case_of().partition(uk.Features(phrase=(3, 4), replacement=(11, 12)))


def test_a_replacement_that_changes_nothing_is_refused():
    with pytest.raises(InputError, match="changes no row"):
        case_of().partition(uk.Features(phrase=(3, 4), replacement=(3, 4)))


def test_rows_that_are_no_windows_of_a_text_are_refused():
    x, y = windows(TEXT)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    for rows in ((x[order], y[order]), (x.float(), y), (x, y.flip(0))):
        case = uk.Case(train=rows, task=uk.Classification(10))
        with pytest.raises(UnsupportedError, match="must be its windows"):
            case.partition(REQUEST)


def test_an_own_training_loop_gets_the_replaced_text():
    seen = {}

    def train_model(model, data, seed):
        seen["x"], seen["y"] = data
        with torch.no_grad():
            model[1].bias += 1
        return model

    net = torch.nn.Sequential
    case = uk.Case(
        train=windows(TEXT),
        task=uk.Classification(10),
        fresh=lambda: net(torch.nn.Embedding(10, 3), torch.nn.Linear(3, 10)),
        train_model=train_model,
        version="1",
    )
    uk.oracle(case, REQUEST, seeds=1)
    want = windows(torch.tensor([1, 2, 7, 8, 6, 1, 2, 9, 9, 7, 8, 6, 0, 1]))
    assert torch.equal(torch.as_tensor(seen["x"]), want[0])
    assert torch.equal(torch.as_tensor(seen["y"]), want[1])
