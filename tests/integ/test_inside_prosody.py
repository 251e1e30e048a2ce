"""A real gateway before a real prosody."""
import insides
import pytest
from inside_cases import *  # noqa: F401,F403


@pytest.fixture(scope="module")
def office(lab):
    if not insides.PROSODY.usable():
        pytest.skip("prosody is not installed, or needs root")
    return insides.Office(lab, insides.PROSODY)
