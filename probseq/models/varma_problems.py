"""What is worth a word about the coefficients of a vector ARMA model: unit roots, and what is not identified."""

from __future__ import annotations

import numpy as np

__all__ = ["companion_values", "undetermined", "varma_problems"]

_NEAR_UNIT, _NEAR_CANCEL, _LOW_RANK = 1e-3, 0.02, 0.02
# Information, relative to the largest, that counts as none.
_FLAT = 1e-9
# A standard error of a free coordinate above this says next to nothing about a partial autocorrelation.
_LOOSE = 5.0


def undetermined(values: np.ndarray) -> float:
    """Eigenvalues of an information matrix up to this belong to directions that the data do not determine."""
    return _FLAT * float(np.abs(values).max(initial=0.0))


def companion_values(matrices: np.ndarray) -> np.ndarray:
    """Eigenvalues (p k,) of the companion of I - sum_i C_i z^i for C (p, k, k): inverses of its roots."""
    p, k = matrices.shape[:2]
    top = matrices.transpose(1, 0, 2).reshape(k, p * k)
    found: np.ndarray = np.linalg.eigvals(np.concatenate([top, np.eye((p - 1) * k, p * k)])) if p else np.zeros(0)
    return found.astype(complex)


def varma_problems(ar: np.ndarray, ma: np.ndarray, information: np.ndarray | None = None) -> tuple[str, ...]:
    """Messages about A (p, k, k) and M (q, k, k) in coordinates with innovations of about unit covariance.

    Parameters
    ----------
    information : (m,) or None
        Eigenvalues of the information over coordinates of about unit size; None where nothing can fail to be
        identified.

    Notes
    -----
    A VARMA(p, q) of several variables is identified where Phi and Theta are left coprime and (A_p, M_q) has rank k
    (Hannan 1969, The identification of vector mixed autoregressive-moving average systems, Biometrika 56).
    """
    messages = []
    for name, matrices, hint in (
        ("autoregressive", ar, "difference the series, or fit its differences"),
        ("moving-average", -ma, "difference less"),
    ):
        for value in companion_values(matrices):
            if value.imag >= 0 and abs(value) > 1.0 / (1.0 + _NEAR_UNIT):
                messages.append(
                    f"The {name} root {_show(1.0 / value)} is within {_NEAR_UNIT:g} of the unit circle: {hint}."
                )
    if not (len(ar) and len(ma)):
        return tuple(messages)
    k = ar.shape[1]
    if k > 1:
        rank = np.linalg.svd(np.concatenate([ar[-1], ma[-1]], 1), compute_uv=False)
        if rank[-1] < _LOW_RANK:
            messages.append(
                f"The matrix (ar_{len(ar)}, ma_{len(ma)}) has nearly rank {int((rank >= _LOW_RANK).sum())} of {k}: "
                "other coefficients give the same law, so that these are not identified; lower both orders, or fit a "
                "VAR."
            )
    for value in companion_values(ar):
        # A root far out is what the rank of the last matrices speaks about.
        if value.imag < 0 or abs(value) < _NEAR_CANCEL:
            continue
        if np.linalg.norm(_annihilator(ar, value) @ _polynomial(ma, value)) < _NEAR_CANCEL * abs(value) ** len(ma):
            messages.append(
                f"The autoregressive root {_show(1.0 / value)} nearly cancels against the moving average: the "
                "coefficients are not identified; lower both orders by one, or fit a VAR."
            )
    if not messages and information is not None:
        loose = int((information < _LOOSE**-2).sum())
        if loose:
            messages.append(
                f"{loose} of {information.size} directions of the parameters are hardly determined by the data: a "
                "VARMA model of these orders is not identified here; lower p or q, or fit a VAR. Forecasts and the "
                "likelihood are not affected."
            )
    return tuple(messages)


def _annihilator(ar: np.ndarray, value: complex) -> np.ndarray:
    """The unit row v with v (I value^p - sum_i A_i value^(p-i)) = 0."""
    p, k = ar.shape[:2]
    powers = value ** np.arange(p - 1, -1, -1)
    matrix = value**p * np.eye(k) - np.tensordot(powers, ar, 1)
    return np.linalg.svd(matrix)[0][:, -1].conj()


def _polynomial(ma: np.ndarray, value: complex) -> np.ndarray:
    """I value^q + sum_j M_j value^(q-j)."""
    q, k = ma.shape[:2]
    found: np.ndarray = value**q * np.eye(k) + np.tensordot(value ** np.arange(q - 1, -1, -1), ma, 1)
    return found


def _show(root: complex) -> str:
    if abs(root.imag) < 1e-9:
        return f"{root.real:.4f}"
    return f"{root.real:.4f} +- {abs(root.imag):.4f}i (modulus {abs(root):.4f})"
