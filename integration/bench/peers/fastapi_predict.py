"""A Predict behind FastAPI and uvicorn, as DSPy's documentation deploys one. It prints its port."""

from __future__ import annotations

import socket

import dspy
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from integration.bench.constant_lm import SIGNATURE, AsyncConstant, Constant

__all__ = ["main"]


class Question(BaseModel):
    question: str


class Answer(BaseModel):
    answer: str


def main() -> None:
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    lm = dspy.LM("demo/knn", engine=Constant(), async_engine=AsyncConstant(), cache=False)
    dspy.configure(lm=lm, adapter=dspy.ChatAdapter(), disable_history=True, track_usage=True)
    predict = dspy.Predict(SIGNATURE)
    app = FastAPI()

    async def ask(asked: Question) -> Answer:
        return Answer(answer=(await predict.acall(question=asked.question)).answer)

    app.post("/predict")(ask)
    sock = socket.create_server(("127.0.0.1", 0))
    print(sock.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[sock])


if __name__ == "__main__":
    main()
