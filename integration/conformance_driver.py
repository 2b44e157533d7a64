"""The Python client put to the test by `dspex conformance --serve`: the driver of the recipe in
protocol/CONFORMANCE.md."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from dspex_protocol.client import Client
from dspex_protocol.errors import DSPexError, NotFoundError, ToolError
from dspex_protocol.messages import Notification

__all__ = ["Driver"]

# Above every wait of the scripted bridge's own.
_BOUND_S = 60.0


class Driver:
    """Runs the cases one after the other. After one that ends its bridge there is another bridge.

    `verdicts` has what the bridge says of each, `{ok, problems}`, by the case's name.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._client: Client
        self.verdicts: dict[str, dict[str, Any]] = {}

    async def run(self) -> int | None:
        """The exit status of the last bridge. Raises TimeoutError where the client is stuck."""
        async with asyncio.timeout(_BOUND_S):
            await self._spawn()
            for case in (await self._question("cases"))["cases"]:
                outcomes = await self._outcomes(case)
                if case["last"]:
                    await self._client.close()
                    await self._spawn()
                verdict = await self._question("saw", case=case["case"], outcomes=outcomes)
                self.verdicts[case["case"]] = verdict
            await self._client.shutdown()
            assert self._client.process is not None
            status = await self._client.process.wait()
            await self._client.close()
        return status

    async def _spawn(self) -> None:
        self._client = await Client.spawn(self._command, handlers={"call_tool": self._call_tool})

    async def _question(self, name: str, **inputs: Any) -> dict[str, Any]:
        answer = await self._client.execute(f"conformance/{name}", inputs)
        outputs: dict[str, Any] = answer["outputs"]
        return outputs

    async def _outcomes(self, case: dict[str, Any]) -> list[dict[str, Any]]:
        if not case["in_turn"]:
            return list(await asyncio.gather(*(self._outcome(case, c) for c in case["calls"])))
        return [await self._outcome(case, call) for call in case["calls"]]

    async def _outcome(self, case: dict[str, Any], call: dict[str, Any]) -> dict[str, Any]:
        """What comes of one call, as the bridge wants to hear it."""
        heard = _Heard(self._client)
        running = asyncio.create_task(
            self._client.execute(
                f"conformance/{case['case']}",
                call["inputs"],
                timeout_ms=call.get("timeout_ms"),
                listener=heard,
                stream={"window": 4} if call.get("stream") else None,
            )
        )
        if call.get("cancel"):
            await self._question("arrived", case=case["case"])
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            return {"cancelled": True}
        try:
            outcome = {"outputs": (await running)["outputs"]}
        except DSPexError as error:
            return {"error": {"code": error.code, "retryable": error.retryable, "data": error.data}}
        return {**outcome, "text": heard.text} if call.get("stream") else outcome

    async def _call_tool(self, params: dict[str, Any]) -> Any:
        tool, args = params["tool"], params["args"]
        if tool == "add":
            return args["a"] + args["b"]
        if tool == "nest":
            answer = await self._client.execute(params["program"], {"n": args["n"]})
            return answer["outputs"]["n"]
        if tool == "wait":
            await asyncio.Event().wait()
        if tool == "fail":
            raise ToolError("this tool always fails")
        raise NotFoundError(f"there is no tool {tool!r}", data={"kind": "tool"})


class _Heard:
    """Joins the chunks of a stream, and grants one for each."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._attempt = 0
        self.text = ""

    def __call__(self, notification: Notification) -> None:
        chunk = notification.params
        if notification.method != "chunk" or not isinstance(chunk.get("text"), str):
            return
        if chunk["attempt"] > self._attempt:
            self._attempt, self.text = chunk["attempt"], ""
        self.text += chunk["text"]
        self._client.grant(chunk["id"], 1)
