import pytest
from pydantic import ValidationError

from refinerl.config import Config


@pytest.fixture
def refused():
    """The message with which sections are refused."""

    def message(**sections) -> str:
        with pytest.raises(ValidationError) as caught:
            Config(**sections)
        return str(caught.value)

    return message
