#!/usr/bin/env python3
"""Times a chain of supersteps in memory: one node that counts, and a branch that loops.

    chain.py [--durability sync|async|exit] [SUPERSTEPS]

The same chain as crates/superstep/examples/chain.rs: one run to warm up, one
that counts, each on a thread of its own; prints the time of the second as one
line of JSON with what the thread came to. Only the run is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import TypedDict

os.environ.setdefault("LANGSMITH_TRACING", "false")

from langgraph.checkpoint.memory import InMemorySaver  # noqa: E402
from langgraph.graph import END, START, StateGraph  # noqa: E402


class State(TypedDict):
    count: int


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--durability", choices=["sync", "async", "exit"], default="sync")
    ap.add_argument("supersteps", type=int, nargs="?", default=1000)
    args = ap.parse_args()

    def add_one(state: State):
        return {"count": state["count"] + 1}

    def path(state: State):
        return "add_one" if state["count"] < args.supersteps else END

    builder = StateGraph(State)
    builder.add_node("add_one", add_one)
    builder.add_edge(START, "add_one")
    builder.add_conditional_edges("add_one", path, ["add_one", END])
    graph = builder.compile(checkpointer=InMemorySaver())

    seconds = 0.0
    for name in ("warm_up", "timed"):
        config = {
            "configurable": {"thread_id": name},
            "recursion_limit": args.supersteps + 10,
        }
        begin = time.perf_counter()
        result = graph.invoke({"count": 0}, config, durability=args.durability)
        seconds = time.perf_counter() - begin
        if result["count"] != args.supersteps:
            raise SystemExit("it miscounted")
    config = {"configurable": {"thread_id": "timed"}}
    checkpoints = sum(1 for _ in graph.get_state_history(config))
    print(
        json.dumps(
            {"seconds": seconds, "supersteps": args.supersteps, "checkpoints": checkpoints}
        )
    )


if __name__ == "__main__":
    main()
