"""Equations as MathML, which browsers draw without help and screen readers read."""

from __future__ import annotations

import re
from html import escape

__all__ = ["mathml"]

_TOKEN = re.compile(r"\s+|[A-Za-z]+|[Α-ωϑφ∇ℝ]|\d+(?:\.\d+)?|[_^]\{[^}]*\}|[_^]\S|.")
_SPACED = "=∼~≈←"


def mathml(text: str) -> str:
    """A line such as ``x_t = φ x_{t−1} + e_t`` as a ``<math>`` element that its plain text names.

    Letters are variables, words of three letters and more stand upright, ``_`` and ``^`` take a sign or ``{...}``.
    """
    plain = re.sub(r"[{}]", "", text)
    return f'<math aria-label="{escape(plain)}">{_row(text)}</math>'


def _row(text: str) -> str:
    parts: list[str] = []
    for token in _TOKEN.findall(text):
        if not token.strip():
            continue
        if token[0] in "_^" and len(token) > 1 and parts:
            below = token[0] == "_"
            inside = _row(token[2:-1] if token[1] == "{" else token[1])
            base = parts.pop()
            if below or not base.startswith("<msub>"):
                tag = "msub" if below else "msup"
                parts.append(f"<{tag}>{base}{inside}</{tag}>")
            else:
                parts.append(f"<msubsup>{base[6:-7]}{inside}</msubsup>")
        else:
            parts.append(_atom(token))
    return f"<mrow>{''.join(parts)}</mrow>"


def _atom(token: str) -> str:
    if token[0].isdigit():
        return f"<mn>{token}</mn>"
    if token[0].isalpha():
        if len(token) == 2:
            return "".join(f"<mi>{letter}</mi>" for letter in token)
        return f"<mi>{token}</mi>" + ('<mspace width="0.17em"></mspace>' if token == "log" else "")
    space = ' lspace="0.28em" rspace="0.28em"' if token in _SPACED else ""
    return f"<mo{space}>{escape(token)}</mo>"
