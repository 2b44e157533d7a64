"""Reads a request back into what DSPy's adapters made it of: fields, demonstrations, inputs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from .fields import Field, Note, make_field
from .forms import FORMS, Form, bounded
from .schemas import (
    Schema,
    TypeExpression,
    allows_null,
    read_expression,
    sound,
)

__all__ = ["Demonstration", "Prompt", "Turn", "read_prompt"]

_OUTPUTS: Final = "\nYour output fields are:\n"
_STRUCTURE: Final = (
    "\nAll interactions will be structured in the following way, "
    "with the appropriate values filled in."
)
_OBJECTIVE: Final = "\nIn adhering to this structure, your objective is: "
_INCOMPLETE: Final = (
    "This is an example of the task, though some input or output fields are not supplied."
)
_FIELD: Final = re.compile(r"^(\d{1,6})\. `(\w+)` \(", re.MULTILINE)


@dataclass(frozen=True)
class Turn:
    """One message: its role and its text."""

    role: str
    text: str


@dataclass(frozen=True)
class Demonstration:
    """The inputs of an example as text, and those of its outputs that fit their fields."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, Any]


@dataclass(frozen=True)
class Prompt:
    form: Form
    inputs: Mapping[str, str]
    outputs: Sequence[Field]
    demonstrations: Sequence[Demonstration]


def read_prompt(
    system: str, turns: Sequence[Turn], response_format: Mapping[str, Any] | None
) -> Prompt | None:
    """The prompt that was written; None where it is of none of the three adapters.

    Turns of a conversation's history carry the request for an answer, as demonstrations do not:
    they are the program's own earlier work and no examples, and are left out.
    """
    if not turns or turns[-1].role != "user":
        return None
    request = _request(turns[-1].text)
    if request is None:
        return None
    form, message, reminder = request
    names = form.output_names(reminder)
    if not names:
        return None
    described_inputs, described_outputs, structure = _system_parts(system)
    notes = form.notes(structure, [*described_inputs, *names])
    responses = _responses(response_format)
    outputs = [
        make_field(
            name,
            *described_outputs.get(name, (TypeExpression("str"), "")),
            notes.get(name, Note()),
            responses.get(name),
        )
        for name in names
    ]
    input_names = list(described_inputs)
    return Prompt(
        form=form,
        inputs=form.inputs(message, input_names),
        outputs=outputs,
        demonstrations=list(_demonstrations(turns[:-1], form, input_names, outputs)),
    )


def _request(text: str) -> tuple[Form, str, str] | None:
    """The form that a message asks an answer in, the message before that, and the request."""
    # The request ends the message: an input may quote another one before it.
    found = max((text.rfind(form.reminder), index) for index, form in enumerate(FORMS))
    start, index = found
    return None if start < 0 else (FORMS[index], text[:start].strip(), text[start:])


Described = dict[str, tuple[TypeExpression | None, str]]


def _system_parts(system: str) -> tuple[Described, Described, str]:
    """The described input fields, the output fields, and the structure section."""
    description, _mark, rest = system.partition(_STRUCTURE)
    structure, _mark, _objective = rest.rpartition(_OBJECTIVE)
    inputs, _mark, outputs = description.partition(_OUTPUTS)
    return _described(inputs), _described(outputs), structure


def _described(text: str) -> Described:
    """The fields of a numbered list: name to type expression and description."""
    starts: list[re.Match[str]] = []
    for match in _FIELD.finditer(text):
        if int(match[1]) == len(starts) + 1:  # else it stands in a description
            starts.append(match)
    fields: Described = {}
    for match, end in bounded(starts, text):
        expression: TypeExpression | None
        try:
            expression, at = read_expression(text, match.end())
            if not text.startswith("):", at):
                raise ValueError("the type goes on")
        except ValueError:
            expression, at = None, text.find("):", match.end(), end)
        fields[match[2]] = (expression, text[at + 2 : end].lstrip(" ").rstrip() if at >= 0 else "")
    return fields


def _responses(response_format: Mapping[str, Any] | None) -> dict[str, Schema]:
    """The schema of each output field in a response format that has a schema."""
    if response_format is None:
        return {}
    schema = sound(response_format.get("schema"))
    definitions: Schema = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    properties: dict[str, Schema] = schema.get("properties", {})
    return {name: {**definitions, **part} for name, part in properties.items()}


def _demonstrations(
    turns: Sequence[Turn], form: Form, input_names: Sequence[str], outputs: Sequence[Field]
) -> Iterator[Demonstration]:
    nullable = {field.name for field in outputs if allows_null(field.schema, field.schema)}
    for user, assistant in pairwise(turns):
        if (user.role, assistant.role) != ("user", "assistant") or form.reminder in user.text:
            continue
        incomplete = user.text.startswith(_INCOMPLETE)
        values = form.outputs(assistant.text, outputs)
        if incomplete:  # DSPy writes None as "None" there, also where it stands for nothing
            values = {
                name: value for name, value in values.items() if value != "None" or name in nullable
            }
        inputs = form.inputs(user.text, input_names)
        if incomplete:
            inputs = {name: text for name, text in inputs.items() if text.strip() != "None"}
        yield Demonstration(inputs, values)
