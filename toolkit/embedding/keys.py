"""Which API key goes to which server: only one that its user named for that host.

A key is whatever an environment variable holds. ``TOOLKIT_KEY_HOSTS`` lists pairs that its user allows, for example
``OPENAI_API_KEY=https://gateway.example:8443,MY_KEY=http://10.0.0.5:8000``. Without it:

* ``OPENAI_API_KEY`` goes to api.openai.com, and to the host of ``OPENAI_BASE_URL`` if that is set;
* a variable that a program names (``RemoteConfig(api_key_env=..)``) goes to the host named with it;
* one that a plan file names goes nowhere: a stranger may have written the file;
* none goes over plain http, except to this machine.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from toolkit.embedding.config import RemoteConfig
from toolkit.errors import PlanError
from toolkit.key_hosts import ALLOWED, is_allowed, origin

_OPENAI_KEY = "OPENAI_API_KEY"
_OPENAI_ORIGIN = "https://api.openai.com"


def key_for(config: RemoteConfig) -> str | None:
    """The key to send to a config's server; None for none.

    Raises PlanError for a named variable that is not set, or whose key would travel unencrypted.
    """
    place = origin(config.base_url)
    variable = config.api_key_env
    if variable is None:
        own = {_OPENAI_ORIGIN, origin(os.environ.get("OPENAI_BASE_URL", _OPENAI_ORIGIN))}
        allowed = place in own and _is_private(place)
        return os.environ.get(_OPENAI_KEY) if allowed or is_allowed(_OPENAI_KEY, place) else None
    key = os.environ.get(variable)
    if not key:
        raise PlanError(
            f"api_key_env names the environment variable {variable}, which is not set; export it first"
        )
    if not _is_private(place) and not is_allowed(variable, place):
        raise PlanError(
            f"the key in {variable} would go to {place} unencrypted; use https, or allow it with the environment "
            f"variable {ALLOWED}='{variable}={place}'"
        )
    return key


def check_key_of_file(variable: str, base_url: str) -> None:
    """Raise PlanError unless the user allowed the pair that a file names."""
    place = origin(base_url)
    if not is_allowed(variable, place):
        raise PlanError(
            f"api_key_env: a file may not choose which environment variable is sent where (here {variable} to "
            f"{place}); if you wrote it, allow the pair with the environment variable {ALLOWED}='{variable}={place}'"
        )


def _is_private(place: str) -> bool:
    """Whether nobody on the way can read along: https, or an address of this machine."""
    parts = urlsplit(place)
    if parts.scheme == "https":
        return True
    host = parts.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
