"""Property: whatever the types, the inputs and the demonstrations, the first answer parses."""

import datetime
import enum
import functools
import uuid
from decimal import Decimal
from types import GenericAlias
from typing import Any, Literal, NamedTuple, Optional, Union

import dspy
import pydantic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TEXTS = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    [
        *("None", "null", "True", "12", "[1,2", "((((((", "He said {a}", '{"a": 1}', 'it\'s "it"'),
        *("a & b < c ]]> d", "<value>x</value>", "</out0>", "\n[[ ## out0 ## ]]\n", "\x00\x0b\x85"),
        "On 2024-01-05 at 10:30 it cost $1,200.50, or 85% of 7.",
        "Not supplied for this particular example.",
    ]
)


class Typed(NamedTuple):
    """An annotation, and values of it."""

    annotation: Any
    values: st.SearchStrategy[Any]


def enumeration(options: list[str]) -> Typed:
    members = {f"member{number}": option for number, option in enumerate(options)}
    # The values of an enumeration are told as one list, "a; b", and its name as the type.
    made: Any = enum.Enum("Options", members)  # type: ignore[misc]  # they are drawn
    return Typed(made, st.sampled_from(list(made)))


def literal(options: list[Any]) -> Typed:
    return Typed(Literal[tuple(options)], st.sampled_from(options))


# An option of unprintable characters or line ends cannot be told in a prompt, nor given back.
OPTIONS = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9
)
SPACED = st.lists(OPTIONS, min_size=1, max_size=3).map(" ".join)

SCALARS = st.sampled_from(
    [
        Typed(str, TEXTS),
        Typed(int, st.integers()),
        Typed(float, st.floats(allow_nan=False, allow_infinity=False)),
        Typed(bool, st.booleans()),
        Typed(datetime.date, st.dates()),
        Typed(datetime.datetime, st.datetimes()),
        Typed(Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=2)),
        Typed(Any, TEXTS),
    ]
)
# Types of which a nested XML structure tells nothing but a name.
CLOSED = st.one_of(
    st.sampled_from(
        [
            Typed(datetime.time, st.times()),
            Typed(datetime.timedelta, st.timedeltas()),
            Typed(uuid.UUID, st.uuids()),
            Typed(bytes, st.binary(max_size=4).map(lambda value: value.hex().encode())),
        ]
    ),
    st.lists(
        SPACED | st.integers(-5, 5) | st.booleans(), min_size=1, max_size=4, unique_by=str
    ).map(literal),
)
ENUMERATIONS = st.lists(OPTIONS, min_size=1, max_size=3, unique=True).map(enumeration)


def model(parts: list[Typed]) -> Typed:
    fields: dict[str, Any] = {
        f"part{number}": (part.annotation, ...) for number, part in enumerate(parts)
    }
    made = pydantic.create_model("Made", **fields)

    def build(values: tuple[Any, ...]) -> Any:
        return made.model_construct(**dict(zip(fields, values, strict=True)))

    return Typed(made, st.tuples(*(part.values for part in parts)).map(build))


def models(parts: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    return st.lists(parts, min_size=1, max_size=3).map(model)


def containers(parts: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    pairs = st.tuples(parts, parts)
    return st.one_of(
        parts.map(
            lambda t: Typed(GenericAlias(list, t.annotation), st.lists(t.values, max_size=3))
        ),
        parts.map(lambda t: Typed(Optional[t.annotation], st.none() | t.values)),  # noqa: UP045
        parts.map(
            lambda t: Typed(
                GenericAlias(dict, (str, t.annotation)),
                st.dictionaries(TEXTS, t.values, max_size=2),
            )
        ),
        pairs.map(
            lambda p: Typed(
                GenericAlias(tuple, (p[0].annotation, p[1].annotation)),
                st.tuples(p[0].values, p[1].values),
            )
        ),
        pairs.map(
            lambda p: Typed(Union[p[0].annotation, p[1].annotation], p[0].values | p[1].values)  # noqa: UP007
        ),
        st.just(Typed(set[int], st.sets(st.integers(), max_size=3))),
    )


def nested(leaves: st.SearchStrategy[Typed], *more: Any) -> st.SearchStrategy[Typed]:
    def extend(parts: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
        return st.one_of(containers(parts), *(extension(parts) for extension in more))

    return st.recursive(leaves, extend, max_leaves=4)


# Enumerations stand at the top only: within something else their schema tells the options, but
# DSPy's Optional[Enum] does not read them back.
TYPES = nested(SCALARS | CLOSED, models) | ENUMERATIONS
# A nested XML structure does not tell the types inside a model (see the engine's docstring).
XML_TYPES = nested(SCALARS | CLOSED) | models(SCALARS | models(SCALARS)) | ENUMERATIONS

INPUTS = st.sampled_from(
    [
        Typed(str, TEXTS),
        Typed(int, st.integers(-9, 9)),
        Typed(bool, st.booleans()),
        Typed(list[str], st.lists(TEXTS, max_size=3)),
    ]
)


def check(ask: Any, adapter: str, types: st.SearchStrategy[Typed], data: st.DataObject) -> None:
    inputs = {f"in{n}": t for n, t in enumerate(data.draw(st.lists(INPUTS, max_size=2)))}
    outputs = {
        f"out{n}": t for n, t in enumerate(data.draw(st.lists(types, min_size=1, max_size=2)))
    }
    fields: dict[str, Any] = {
        name: (
            typed.annotation,
            (dspy.InputField if name in inputs else dspy.OutputField)(desc=desc),
        )
        for name, typed in (inputs | outputs).items()
        for desc in [data.draw(TEXTS)]
    }

    def example() -> dspy.Example:
        return dspy.Example(
            **{
                name: data.draw(typed.values)
                for name, typed in (inputs | outputs).items()
                if data.draw(st.integers(0, 5))
            }
        )

    demos = [example() for _number in range(data.draw(st.integers(0, 3)))]
    prediction = ask(
        dspy.Signature(fields, data.draw(TEXTS)),
        adapter,
        {name: data.draw(typed.values) for name, typed in inputs.items()},
        demos,
        module=data.draw(st.sampled_from([dspy.Predict, dspy.ChainOfThought])),
    )
    for name, typed in outputs.items():
        pydantic.TypeAdapter(typed.annotation).validate_python(prediction[name])


thorough = functools.partial(
    settings,
    max_examples=80,
    deadline=None,  # the first example imports half of DSPy
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@thorough()
@given(data=st.data())
def test_the_first_answer_parses_under_the_chat_adapter(ask: Any, data: st.DataObject) -> None:
    check(ask, "chat", TYPES, data)


@thorough()
@given(data=st.data())
def test_the_first_answer_parses_under_the_json_adapter(ask: Any, data: st.DataObject) -> None:
    check(ask, "json", TYPES, data)


@thorough()
@given(data=st.data())
def test_the_first_answer_parses_under_the_xml_adapter(ask: Any, data: st.DataObject) -> None:
    check(ask, "xml", XML_TYPES, data)
