"""What can be asked, with its bounds: the bodies of requests."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from shortrun.errors import UserError
from shortrun.serve.models import MOST_RUNS

MOST_CHARACTERS = 2_000
"""Of a text that is read."""
MOST_PREFIX = 500
MOST_SAMPLES = 100
MOST_WORD = 100
MOST_DOCUMENTS = 100
"""Of one page of them."""

LIMITS = {"characters": MOST_CHARACTERS, "prefix": MOST_PREFIX, "samples": MOST_SAMPLES, "word": MOST_WORD}
"""What the page is told of them."""

RunNumber = Annotated[int, Field(ge=0, lt=MOST_RUNS)]
Step = Annotated[int | None, Field(ge=0, lt=2**53)]


class Question(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Reader(Question):
    """A run's checkpoint; without a step, its newest."""

    run: RunNumber = 0
    step: Step = None


class ReadQuestion(Question):
    text: Annotated[str, StringConstraints(max_length=MOST_CHARACTERS)]
    readers: Annotated[list[Reader], Field(min_length=1, max_length=MOST_RUNS)]
    top: Annotated[int, Field(ge=1, le=50)] = 10


class SampleQuestion(Reader):
    prefix: Annotated[str, StringConstraints(max_length=MOST_PREFIX)] = ""
    count: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] = 5
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    top_k: Annotated[int | None, Field(ge=1, lt=2**31)] = None
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0
    """JavaScript has no whole numbers beyond."""


class DocumentsQuestion(Question):
    run: RunNumber = 0
    word: Annotated[str, StringConstraints(max_length=MOST_WORD)] = ""
    order: Literal["hardest", "easiest"] = "hardest"
    offset: Annotated[int, Field(ge=0, lt=2**53)] = 0
    count: Annotated[int, Field(ge=1, le=MOST_DOCUMENTS)] = 20


Asked = TypeVar("Asked", bound=Question)


def parsed(kind: type[Asked], body: bytes) -> Asked:
    """The question that a body holds; raises UserError, which names what is wrong, where it holds none."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise UserError("; ".join(_sentence(dict(each)) for each in error.errors(include_url=False))) from None


def _sentence(error: dict[str, Any]) -> str:
    place = ".".join(map(str, error["loc"]))
    return f"{place}: {error['msg']}" if place else str(error["msg"])
