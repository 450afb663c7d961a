"""Forms that an answer can be asked to have: ``response_format`` of a chat, and ``text.format`` of a response.

Builds on the grammars of the engine. They are refused, with the reason, without the extra ``grammar``; with vLLM
servers; for a model whose tokens cannot be held to a form; and for an unknown part of JSON Schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tacit.engines import grammar
from tacit.errors import ConfigError
from tacit.model.backbone import Backbone
from tacit.server.api.errors import invalid

Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextFormat(_Form):
    """Any text."""

    type: Literal["text"]


class JsonObject(_Form):
    """A JSON object, of whatever is in it."""

    type: Literal["json_object"]


class JsonSchema(_Form):
    """A schema and its name; it is followed, whatever ``strict`` says."""

    name: Name
    description: Annotated[str, StringConstraints(max_length=4096)] | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(_Form):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class FlatJsonSchema(JsonSchema):
    """The same, as a response's ``text.format`` has it."""

    type: Literal["json_schema"]

    def as_chat(self) -> JsonSchemaFormat:
        """As a chat has it."""
        told = self.model_dump(by_alias=True, exclude={"type"})
        return JsonSchemaFormat(type="json_schema", json_schema=JsonSchema.model_validate(told))


Format = Annotated[TextFormat | JsonObject | JsonSchemaFormat, Field(discriminator="type")]
FlatFormat = Annotated[TextFormat | JsonObject | FlatJsonSchema, Field(discriminator="type")]


def grammar_of(backbone: Backbone, form: TextFormat | JsonObject | JsonSchemaFormat | None) -> str:
    """The engine's grammar of a form; "" for any text. Takes a moment: outside the event loop.

    Raises:
        Refused: this model, or this server, cannot hold an answer to it.
    """
    if form is None or isinstance(form, TextFormat):
        return ""
    schema = form.json_schema.schema_ if isinstance(form, JsonSchemaFormat) else {"type": "object"}
    try:
        found = grammar.of_schema(schema)
        grammar.check(backbone, found)
    except (grammar.GrammarError, ConfigError) as error:
        raise invalid(str(error), "response_format") from None
    return found
