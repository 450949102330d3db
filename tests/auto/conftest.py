"""A toy case, a trained model, and toy methods that are installed for one test."""

import pytest

from tests.auto import plugins
from unlearnkit import catalog
from unlearnkit.oracles import train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case


@pytest.fixture
def installed():
    """Methods of another package, found by the catalog until the test is over."""
    plugins.install()
    catalog.methods.cache_clear()
    yield
    plugins.remove()
    catalog.methods.cache_clear()


@pytest.fixture(scope="session")
def clouds():
    """A trained classifier of three clouds, and its case: 60 rows, ten owners."""
    case = toy_case(Classification(3))
    case = case.replace(recipe=case.recipe.model_copy(update={"epochs": 40}))
    return train_original(case).model, case
