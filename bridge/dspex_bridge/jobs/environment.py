"""The environment of the zygote, and so of every worker and of the Deno that it starts.

Their modules read text of an LM's, and the bridge makes all calls that need a key: what they get is
a list of what they need, so that a secret is in none of them, whatever its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_bridge.redaction import is_secret_name, secrets_of_url

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["worker_environment"]

_PASSED_ON = frozenset(
    {
        # Whose process it is, where its files are, what it speaks.
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LANGUAGE"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
        # How this Python and its libraries are found, and Deno and its packages.
        *("VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
        *("DSPY_CACHEDIR", "DENO_DIR", "DENO_CERT", "DENO_TLS_CA_STORE", "DENO_NO_UPDATE_CHECK"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "NPM_CONFIG_REGISTRY"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    }
)
_PREFIXES = ("LC_", "PYTHON")

_OWN = {
    # NumPy's threads would make every fork a gamble.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # The same run is the same again, whatever sets are made on the way.
    "PYTHONHASHSEED": "0",
    # Bars of progress have no terminal here.
    "TQDM_DISABLE": "1",
    # Else LiteLLM reads the .env of the folder, keys and all.
    "LITELLM_MODE": "PRODUCTION",
}


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What of the bridge's environment is passed on, and what is set for all workers."""
    passed = {name: value for name, value in environment.items() if _is_passed(name, value)}
    return {**passed, **_OWN}


def _is_passed(name: str, value: str) -> bool:
    # Proxies are written in either case.
    is_listed = name.upper() in _PASSED_ON or name.startswith(_PREFIXES)
    has_secret = is_secret_name(name) or ("://" in value and any(secrets_of_url(value)))
    return is_listed and not has_secret
