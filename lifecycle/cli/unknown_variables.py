"""Find environment variables that look like settings and are none, as a misspelt one."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator

from lifecycle.settings import PREFIX, Settings, environment_name

# Kubernetes gives every pod such variables for each Service, for example LIFECYCLE_PORT=tcp://10.0.0.1:8000.
_SERVICE_LINK = re.compile(r"(_SERVICE_(HOST|PORT(_\w+)?)|_PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)$")
_LIKENESS = 0.75
_OTHERS = frozenset({"LIFECYCLE_ALIVE_FILE", "LIFECYCLE_KEY", "LIFECYCLE_LOG_FORMAT"})


def warnings() -> Iterator[str]:
    """Yield a line for each LIFECYCLE_ variable of the environment that is unknown, with the most similar name."""
    known = {environment_name(name) for name in Settings.model_fields} | _OTHERS
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.search(name):
            nearest = next(iter(difflib.get_close_matches(name, known, 1, _LIKENESS)), None)
            advice = f"did you mean {nearest}?" if nearest else "remove it, or see the reference of the settings"
            yield f"the environment variable {name} is not a setting and has no effect: {advice}"
