"""Keys for tests: a file of them, and each key's headers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lifecycle.fastapi.api_key import new_key
from lifecycle.fastapi.caller import KeyRole

LIMIT = 7


@dataclass(frozen=True)
class Keys:
    """`acme` is a client with a limit, `globex` one without, `ops` an operator."""

    file: Path
    of: dict[str, str]

    @classmethod
    def make(cls, directory: Path) -> Keys:
        made = {
            "acme": new_key("acme", KeyRole.CLIENT, LIMIT),
            "globex": new_key("globex", KeyRole.CLIENT),
            "ops": new_key("ops", KeyRole.OPERATOR),
        }
        file = directory / "keys"
        file.write_text("# who may call\n" + "".join(f"{kept.line}\n" for _, kept in made.values()))
        return cls(file, {name: key for name, (key, _) in made.items()})

    def bearer(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.of[name]}"}
