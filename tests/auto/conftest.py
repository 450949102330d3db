"""A toy case, a trained model, and toy methods that are installed for one test."""

import pytest

from tests.auto import plugins
from unlearnkit import catalog
from unlearnkit.oracles import train_original
from unlearnkit.tasks.classification import Classification


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
    case = Classification(3).toy(0)
    case = case.with_(recipe=case.recipe.model_copy(update={"epochs": 40}))
    return train_original(case).model, case
