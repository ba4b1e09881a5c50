"""The user's own settings of the app: theme and keys, from ``config.toml`` in the user's configuration folder."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workbench.errors import UsageError

DEFAULT_THEME = "dark"
THEME_NAMES = ("dark", "light", "high-contrast", "ansi-dark", "ansi-light")


@dataclass(frozen=True)
class Settings:
    """A theme's name, and keys by the id of what they do (``workbench keys`` names them all)."""

    theme: str = DEFAULT_THEME
    keys: Mapping[str, str] = field(default_factory=dict)


def settings_file() -> Path:
    """Where the user's settings lie."""
    from platformdirs import user_config_path

    return user_config_path("workbench") / "config.toml"


def load_settings(path: Path) -> Settings:
    """The settings in the file at ``path``, the defaults where there is none. Raises UsageError."""
    try:
        found = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "Mend it, or move it away.") from None
    theme, keys = found.get("theme", DEFAULT_THEME), found.get("keys", {})
    if theme not in THEME_NAMES:
        raise UsageError(f"{path}: there is no theme {theme!r}.", f"Allowed: {', '.join(THEME_NAMES)}.")
    if not isinstance(keys, dict) or not all(isinstance(key, str) and key for key in keys.values()):
        raise UsageError(f"{path}: keys must be a table of key names by action.", 'Such as "home.run" = "x".')
    return Settings(theme, keys)
