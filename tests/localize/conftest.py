"""The small problems of the method tests."""

from tests.methods.conftest import clouds, toy  # noqa: F401  # fixtures
