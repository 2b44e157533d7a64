"""The same in Python, with the asyncio client that this package brings.

python python.py [COMMAND ...]      COMMAND starts a bridge: this Python's by default
"""

import asyncio
import sys

from dspex_protocol.client import Client
from dspex_protocol.errors import InputValidationError
from dspex_protocol.messages import Notification

LETTER = "The database has been down since nine and nobody can log in. It is urgent."


class Stream:
    """The text of a streamed field, which has to grant each chunk."""

    def __init__(self, client: Client) -> None:
        self.text = ""
        self._client = client
        self._attempt = 0

    def hear(self, notification: Notification) -> None:
        chunk = notification.params
        if chunk["attempt"] != self._attempt:  # a retry begins again
            self.text, self._attempt = "", chunk["attempt"]
        self.text += chunk["text"]
        self._client.grant(chunk["id"], 1)


async def main() -> None:
    client = await Client.spawn(sys.argv[1:] or None)
    async with client:
        greeting = (
            await client.initialize()
        )  # spawn has asked already, but does not keep the answer
        print(f"connected: protocol {greeting['protocol_version']}")
        await client.configure(lms={"main": {"model": "demo/knn"}})
        await client.create("letter -> summary, urgent: bool", program="triage")

        result = await client.execute("triage", {"letter": LETTER})
        outputs = result["outputs"]
        print(f"answer: {outputs['summary']} (urgent: {str(outputs['urgent']).lower()})")

        heard = Stream(client)
        stream = {"fields": ["summary"], "window": 1}
        await client.execute("triage", {"letter": LETTER}, stream=stream, listener=heard.hear)
        print(f"streamed: {heard.text}")

        try:
            await client.execute("triage", {"leter": "Hello"})
        except InputValidationError as error:
            print(f"error: {error.code}, {'worth a retry' if error.retryable else 'final'}")
            for one in error.data["errors"]:
                print(f"  {'.'.join(one['path'])}: {one['message']}")
        await client.shutdown()
    assert client.process is not None
    print(f"ended: status {client.process.returncode}")


asyncio.run(main())
