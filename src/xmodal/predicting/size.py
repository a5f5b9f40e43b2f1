"""How large an output will be, known before anything is predicted, and refused above a limit."""

from __future__ import annotations

from xmodal.errors import InputRefused

GB = 1e9  # bytes
DEFAULT = 20.0  # GB: 16,000 cells x 100,000 peaks with their intervals, or 50,000 without
VALUE = 4  # bytes of a float32


def dense(cells: int, features: int, matrices: int) -> int:
    """Bytes of so many float32 matrices (cells, features)."""
    return cells * features * VALUE * matrices


def require_size(size: int, most: float, where: str, instead: list[str]) -> None:
    """Refuse ``size`` above ``most`` (bytes); ``instead``: the options that need less."""
    if size <= most:
        return
    raise InputRefused(
        f"the output would take {size / GB:,.3g} GB, more than the limit of {most / GB:,.3g} GB",
        where=where,
        do=f"give {', '.join([*instead, 'fewer cells'])}, or a higher limit (--max-size GB)",
    )
