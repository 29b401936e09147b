"""What a request to the web service may say, and how much of it.

Checked before any model is asked; whether a run takes such items is `serve.py`'s to say.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MAX_ITEMS = 128  # in a request
MAX_CHARACTERS = 20_000  # of an item's texts together


def _check_text(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "holds no text")
    if re.search("[\ud800-\udfff]", text):
        raise PydanticCustomError("half", "holds half of a character (a lone surrogate)")
    return text


Text = Annotated[str, AfterValidator(_check_text)]


class RequestItem(BaseModel):
    """What is asked about: the fields that `/runs` names for the run."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(None, description="Comes back with the answer; else the item's number.")
    text: Text | None = Field(None, description="With <e1> and <e2> around the two of a relation.")
    text_pair: Text | None = None
    words: Annotated[list[Text], Field(min_length=1)] | None = None
    context: Text | None = None
    question: Text | None = None

    @model_validator(mode="after")
    def _check_length(self) -> "RequestItem":
        given = [*vars(self).values(), *(self.words or ())]
        if (length := sum(len(text) for text in given if isinstance(text, str))) > MAX_CHARACTERS:
            message = f"{length} characters, where an item may have {MAX_CHARACTERS}"
            raise PydanticCustomError("item_too_long", "{message}", {"message": message})
        return self

    @property
    def asked(self) -> dict[str, Any]:
        """Return the fields that are given, but for the id."""
        return {k: v for k, v in vars(self).items() if v is not None and k != "id"}


class PredictRequest(BaseModel):
    """A request: items in one language, for one run."""

    model_config = ConfigDict(extra="forbid")

    run: str = Field(max_length=300, description="One of the names in `/runs`.")
    language: str | None = Field(
        None, max_length=40, description="Of the items; else that which the run was trained on."
    )
    items: list[RequestItem] = Field(min_length=1, max_length=MAX_ITEMS)
