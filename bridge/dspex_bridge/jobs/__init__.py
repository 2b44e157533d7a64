"""Work in processes of its own, which can be killed: what asyncio cannot cancel.

The bridge asks a *zygote* (one process with one thread, which has imported DSPy) for a fork, and
speaks to the fork, the *worker*, over a socket pair, in the protocol's own frames. A worker holds
no key and opens no connection: LM calls, tools and metrics are requests to the bridge.
"""
