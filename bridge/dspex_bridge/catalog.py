"""What this bridge offers by name: static, so that `initialize` is answered before DSPy is here."""

from __future__ import annotations

__all__ = [
    "ADAPTERS",
    "INNER_MODULES",
    "METRICS",
    "MODULES",
    "OPTIMIZERS",
    "PROTOCOL_VERSION",
    "REDUCES",
    "VERSION",
]

VERSION = "0.1.0"
PROTOCOL_VERSION = 1

MODULES = (
    *("predict", "chain_of_thought", "react", "react_v2", "best_of_n", "refine"),
    *("multi_chain_comparison", "knn", "program_of_thought", "code_act", "rlm", "flex"),
)

# Those that best_of_n, refine and knn may be made of.
INNER_MODULES = ("predict", "chain_of_thought")

ADAPTERS = ("chat", "json", "xml", "baml", "two_step")
OPTIMIZERS = (
    *("labeled_few_shot", "bootstrap_few_shot", "bootstrap_few_shot_random_search"),
    *("bootstrap_few_shot_optuna", "knn_few_shot", "copro", "mipro_v2", "simba", "gepa"),
    *("infer_rules", "ensemble", "variables"),
)

# How one answer comes of those of an ensemble.
REDUCES = ("majority",)

METRICS = ("exact_match", "f1", "contains", "numeric_close", "json_match", "semantic_f1")
