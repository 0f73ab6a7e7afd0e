"""The bodies that clients send, checked by pydantic."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text = Annotated[str, StringConstraints(strict=True)]
Texts = Text | Annotated[list[Text], Field(min_length=1)]
TokenIds = Annotated[list[Annotated[int, Field(strict=True)]], Field(min_length=1)]
Dimensions = Annotated[int, Field(ge=1)] | None


class OpenAIRequest(BaseModel):
    """`POST /v1/embeddings` (https://platform.openai.com/docs/api-reference/embeddings)."""

    input: Texts | TokenIds | Annotated[list[TokenIds], Field(min_length=1)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Dimensions = None
    user: str | None = None


class TeiRequest(BaseModel):
    """`POST /embed` and `/tokenize` of Text Embeddings Inference."""

    model_config = ConfigDict(extra="ignore")
    inputs: Texts
    normalize: bool | None = None
    prompt_name: str | None = None
    dimensions: Dimensions = None
    truncate: bool | None = None
    add_special_tokens: bool = True


Sequence = Annotated[tuple[Text] | tuple[Text, Text], Field(union_mode="left_to_right")]
"""A text, or a text and its pair."""


class RerankRequest(BaseModel):
    """`POST /rerank` of Text Embeddings Inference."""

    model_config = ConfigDict(extra="ignore")
    query: Text
    texts: Annotated[list[Text], Field(min_length=1)]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None


class PredictRequest(BaseModel):
    """`POST /predict` of Text Embeddings Inference."""

    model_config = ConfigDict(extra="ignore")
    inputs: Text | Sequence | Annotated[list[Sequence], Field(min_length=1)]
    raw_scores: bool = False
    truncate: bool | None = None


class OllamaRequest(BaseModel):
    """`POST /api/embed` of Ollama."""

    model_config = ConfigDict(extra="ignore")
    model: str
    input: Texts
    dimensions: Dimensions = None
    truncate: bool | None = None
