"""The app's themes: dark, light, high contrast, and one of the terminal's own 16 colours."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="dark",
    dark=True,
    primary="#7AA2F7",
    secondary="#7DCFFF",
    accent="#BB9AF7",
    foreground="#C8D0E8",
    background="#13151C",
    surface="#1A1D27",
    panel="#232733",
    success="#8FCB7A",
    warning="#E5B567",
    error="#F2778A",
)
LIGHT = Theme(
    name="light",
    dark=False,
    primary="#2F5FC4",
    secondary="#0B7A99",
    accent="#7A3FB8",
    foreground="#22252E",
    background="#FBFAF7",
    surface="#F2F1EC",
    panel="#E6E4DC",
    success="#2C7A35",
    warning="#8A5A00",
    error="#B3243A",
)
HIGH_CONTRAST = Theme(
    name="high-contrast",
    dark=True,
    primary="#FFFF00",
    secondary="#00FFFF",
    accent="#FFFFFF",
    foreground="#FFFFFF",
    background="#000000",
    surface="#000000",
    panel="#1A1A1A",
    success="#00FF66",
    warning="#FFD000",
    error="#FF6B6B",
    variables={"text-muted": "#FFFFFF", "border": "#FFFFFF", "block-cursor-text-style": "bold reverse"},
)
ANSI = "ansi-dark"
"""Textual's own theme of the terminal's colours."""

THEMES = (DARK, LIGHT, HIGH_CONTRAST)
