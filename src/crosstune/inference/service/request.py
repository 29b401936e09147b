"""The body of a request to /predict, and its limits; checked before any model runs.

Whether the named run accepts such items is checked in `app.py`.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MAX_ITEMS = 128  # in a request
MAX_CHARACTERS = 20_000  # of all texts of an item


def _check_text(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "holds no text")
    if re.search("[\ud800-\udfff]", text):
        raise PydanticCustomError("half", "holds half of a character (a lone surrogate)")
    return text


Text = Annotated[str, AfterValidator(_check_text)]


class RequestItem(BaseModel):
    """One item: its fields must be those that `/runs` lists for the run."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(
        None, description="Returned with the answer; default: the item's number."
    )
    text: Text | None = Field(None, description="A relation has its two entities in <e1> and <e2>.")
    text_pair: Text | None = None
    words: Annotated[list[Text], Field(min_length=1)] | None = None
    context: Text | None = None
    question: Text | None = None

    @model_validator(mode="after")
    def _check_length(self) -> "RequestItem":
        texts = [*vars(self).values(), *(self.words or ())]
        if (length := sum(len(text) for text in texts if isinstance(text, str))) > MAX_CHARACTERS:
            message = f"{length} characters, where an item may have {MAX_CHARACTERS}"
            raise PydanticCustomError("item_too_long", "{message}", {"message": message})
        return self

    @property
    def inputs(self) -> dict[str, Any]:
        """The fields that are set, without the id."""
        return {k: v for k, v in vars(self).items() if v is not None and k != "id"}


class PredictRequest(BaseModel):
    """A request: items in one language, for one run."""

    model_config = ConfigDict(extra="forbid")

    run: str = Field(max_length=300, description="One of the names in `/runs`.")
    language: str | None = Field(
        None, max_length=40, description="Of the items; default: the run's training language."
    )
    items: list[RequestItem] = Field(min_length=1, max_length=MAX_ITEMS)
