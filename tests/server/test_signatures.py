"""Signatures: their versions, and what is made of them."""

from __future__ import annotations

from typing import Any

import pytest
from dspex_protocol.errors import (
    SignatureError,
)
from dspex_server.db.models import Signature
from dspex_server.errors import WrongStateError
from dspex_server.resources import signatures

from tests.server.background import on_a_loop
from tests.server.resources import history, opened


@on_a_loop
async def test_a_changed_definition_is_a_new_version_and_the_same_one_is_not(url: str) -> None:
    async with opened(url) as database:

        async def create(definition: str, **options: Any) -> Signature:
            async with database.write() as session:
                return await signatures.create_signature(session, "qa", definition, **options)

        first = await create("question -> answer")
        assert (first.version, first.state) == (1, "active")
        assert (await create("question: str -> answer: str")).id == first.id
        second = await create("question -> answer: int", draft=True)
        assert (second.version, second.state) == (2, "draft")
        assert (await create("question -> answer: int")).state == "active"
        assert await history(database, second.id) == [(None, "draft"), ("draft", "active")]
        with pytest.raises(SignatureError):
            await create("question -> answer: nonsense")


@on_a_loop
async def test_programs_are_not_made_of_a_deprecated_signature(url: str) -> None:
    async with opened(url) as database:
        async with database.write() as session:
            made = await signatures.create_signature(session, "qa", "question -> answer")
            await signatures.SIGNATURES.move(session, made.id, "deprecated")
        with pytest.raises(WrongStateError, match="deprecated: make programs of a newer version"):
            async with database.write() as session:
                await signatures.usable_signature(session, made.id)
