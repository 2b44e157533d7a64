"""Which LM a first try uses: what the environment offers."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_MODEL", "EMBEDDED_MODEL", "PROVIDER_KEYS", "RECORD_VARIABLE", "choose_model"]

EMBEDDED_MODEL = "demo/knn"

# Makes every bridge record, without a change of its command line.
RECORD_VARIABLE = "DSPEX_RECORD"

# Small, cheap and known to DSPy's price table.
DEFAULT_MODEL = "openai/gpt-5-mini"

# The environment variable of each provider whose key `dspex doctor` looks for, and a model's
# prefix that it is for. Any other provider of LiteLLM's works with DSPEX_MODEL too.
PROVIDER_KEYS = {
    "OPENAI_API_KEY": "openai/",
    "ANTHROPIC_API_KEY": "anthropic/",
    "GEMINI_API_KEY": "gemini/",
    "GROQ_API_KEY": "groq/",
    "DEEPSEEK_API_KEY": "deepseek/",
    "MISTRAL_API_KEY": "mistral/",
    "OPENROUTER_API_KEY": "openrouter/",
    "XAI_API_KEY": "xai/",
    "AZURE_API_KEY": "azure/",
}


def choose_model(environment: Mapping[str, str] = os.environ) -> tuple[str, str | None]:
    """The model for a first try, and a line for the user where it is not a real one."""
    model = environment.get("DSPEX_MODEL")
    if model:
        return model, None
    if environment.get("OPENAI_API_KEY"):
        return DEFAULT_MODEL, None
    return EMBEDDED_MODEL, (
        "No OPENAI_API_KEY and no DSPEX_MODEL: using the embedded demo/knn, which only looks up "
        "or extracts and has no intelligence."
    )
