"""What was fitted, as what JSON can hold, and back again bit for bit.

Frozen dataclasses, arrays, labels and tables become objects with their `kind`; floats
are written so that they are read as they were. Of the user's own table of quotes what
the rows used have in common is kept, such as the currency.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from relu_options.market_data import ExpiryQuotes

KINDS = {
    "ExpiryQuotes": "market_data.expiry_quotes",
    "FitReport": "curves",
    "ParityEstimate": "market_data.parity",
    "QuoteReport": "market_data.cleaning",
    "SurfaceFit": "surfaces",
    "TrainedSurfaceFit": "fitting.surface_training",
    "TrainingHistory": "fitting.training",
    "TrainingReport": "fitting.training",
}
"""The dataclasses that a document may hold, and their modules."""


def to_document(value: Any) -> Any:
    """A value as what JSON can hold.

    Args:
        value: None, a number, a text, a time, an array, an index or a table of these, a
            tuple of them, or one of `KINDS`.

    Raises:
        TypeError: If it is something else.

    Examples:
        >>> to_document((1.5, float("nan"), "PM"))
        [1.5, {'kind': 'float', 'value': 'nan'}, 'PM']
        >>> from_document(to_document(np.array([0.1, np.nan])))
        array([0.1, nan])
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if value is pd.NaT or value is pd.NA:
        return {"kind": "missing", "value": "NaT" if value is pd.NaT else "NA"}
    for kind, write in _WRITERS.items():
        if isinstance(value, kind):
            return write(value)
    return _write_fields(value)


def _write_fields(value: Any) -> Any:
    """One of `KINDS`, by the names of its fields."""
    name = type(value).__name__
    if name not in KINDS or not is_dataclass(value):
        raise TypeError(f"a document has no place for a {name}: {value!r:.60}")
    document: dict[str, Any] = {"kind": name}
    for field in fields(value):
        if not field.name.startswith("_"):
            document[field.name] = to_document(getattr(value, field.name))
    whole: Any = value
    if name == "ExpiryQuotes":
        document["shared"] = _shared(whole)
    elif name in ("SurfaceFit", "TrainedSurfaceFit"):
        document["conflicts"] = to_document(whole.conflicts)
    return document


def from_document(document: Any) -> Any:
    """The value that `to_document` has turned.

    Raises:
        ValueError: If it is not such a document.

    Examples:
        >>> import relu_options as ro
        >>> quotes = ro.prepare_quotes(ro.bundled_chain()["2025-06-20"])
        >>> again = from_document(to_document(quotes))
        >>> again.to_frame().equals(quotes.to_frame()), again.forward == quotes.forward
        (True, True)
    """
    if isinstance(document, list):
        return tuple(from_document(one) for one in document)
    if not isinstance(document, dict):
        return document
    rest = dict(document)
    kind = rest.pop("kind", None)
    try:
        if kind in _READERS:
            return _READERS[kind](**rest)
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}")
        shared = rest.pop("shared", None)
        known = {name: from_document(value) for name, value in rest.items()}
        home = import_module(f"relu_options.{KINDS[kind]}")
        if kind == "ExpiryQuotes":
            return _quotes(home.ExpiryQuotes, known, from_document(shared))
        if kind in ("SurfaceFit", "TrainedSurfaceFit"):
            known["_conflicts"] = known.pop("conflicts")
        return getattr(home, kind)(**known)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{kind}: {error}") from error


def _shared(quotes: ExpiryQuotes) -> list:
    """Columns of the user's rows that have one value, of a kind that is kept."""
    found = []
    for name, column in quotes.table.items():
        first = column.iloc[0]
        kept = isinstance(first, str | float | int | np.number | pd.Timestamp)
        if isinstance(name, str) and kept and (column == first).all():
            found.append([name, to_document(first)])
    return found


def _quotes(kind: Callable[..., ExpiryQuotes], known: dict, shared: tuple) -> Any:
    """The quotes again; the user's rows are what is known of them."""
    empty = pd.DataFrame(index=known["labels"])
    rows = np.arange(len(known["labels"]))
    quotes = kind(**known, _source=empty, _rows=rows)
    return replace(quotes, _source=quotes.to_frame().assign(**dict(shared)))


def _write_number(value: float) -> Any:
    known = np.isfinite(value)
    return float(value) if known else {"kind": "float", "value": repr(float(value))}


def _write_scalar(value: np.generic) -> Any:
    return to_document(value.item())


def _write_time(value: pd.Timestamp) -> Any:
    return {"kind": "time", "value": value.isoformat(), "unit": value.unit}


def _write_items(values: tuple | list) -> Any:
    return [to_document(one) for one in values]


def _write_array(array: np.ndarray) -> Any:
    if array.dtype.kind in "Mm":
        return _write_index(pd.Index(array.reshape(-1)))
    if array.dtype.kind == "O":
        values = [to_document(one) for one in array.reshape(-1)]
    elif array.dtype.kind == "f":
        flat = array.astype(float).reshape(-1)
        values = [x if np.isfinite(x) else repr(x) for x in flat.tolist()]
    else:
        values = array.reshape(-1).tolist()
    document = {"kind": "array", "dtype": str(array.dtype), "values": values}
    return document if array.ndim == 1 else document | {"shape": list(array.shape)}


def _read_array(dtype: str, values: list, shape: list | None = None) -> np.ndarray:
    if dtype == "object":
        array = np.empty(len(values), object)
        array[:] = [from_document(one) for one in values]
    elif np.dtype(dtype).kind == "f":
        array = np.array([float(x) for x in values], dtype)
    else:
        array = np.array(values, dtype)
    return array if shape is None else array.reshape(shape)


def _write_index(index: pd.Index) -> Any:
    names = [name if isinstance(name, str) else None for name in index.names]
    document: dict[str, Any] = {"kind": "index", "names": names}
    if isinstance(index, pd.MultiIndex):
        levels = [index.get_level_values(place) for place in range(index.nlevels)]
        return document | {"levels": [_write_index(level) for level in levels]}
    if isinstance(index, pd.DatetimeIndex):
        zone = None if index.tz is None else str(index.tz)
        count = index.asi8.tolist()
        return document | {"times": count, "unit": index.unit, "zone": zone}
    values = index.to_numpy()
    if values.dtype.kind not in "biufO":
        values = values.astype(object)
    return document | {"values": _write_array(values), "dtype": str(index.dtype)}


def _read_index(
    names: list,
    values: Any = None,
    dtype: str | None = None,
    levels: list | None = None,
    times: list | None = None,
    unit: str | None = None,
    zone: str | None = None,
) -> pd.Index:
    if levels is not None:
        parts = [from_document(level) for level in levels]
        return pd.MultiIndex.from_arrays(parts, names=names)
    if times is not None:
        stamps = np.array(times, "int64").view(f"datetime64[{unit}]")
        index = pd.DatetimeIndex(stamps, name=names[0])
        return index if zone is None else index.tz_localize("UTC").tz_convert(zone)
    return pd.Index(from_document(values), dtype=dtype, name=names[0])


def _write_table(table: pd.DataFrame) -> Any:
    columns = [[name, _write_index(pd.Index(column))] for name, column in table.items()]
    return {"kind": "table", "columns": columns, "index": _write_index(table.index)}


def _read_table(columns: list, index: Any) -> pd.DataFrame:
    labels = from_document(index)
    read = {name: from_document(values) for name, values in columns}
    data = {name: pd.Series(one, index=labels, name=name) for name, one in read.items()}
    return pd.DataFrame(data, index=labels, columns=list(read))


def _read_float(value: str) -> float:
    return float(value)


def _read_time(value: str, unit: str) -> pd.Timestamp:
    return pd.Timestamp(value).as_unit(unit)  # type: ignore[arg-type]


def _read_missing(value: str) -> Any:
    return pd.NaT if value == "NaT" else pd.NA


_WRITERS: dict[type, Callable[[Any], Any]] = {
    float: _write_number,  # before NumPy's own, which are some of these
    np.generic: _write_scalar,
    pd.Timestamp: _write_time,
    tuple: _write_items,
    list: _write_items,
    np.ndarray: _write_array,
    pd.Index: _write_index,
    pd.DataFrame: _write_table,
}
_READERS: dict[Any, Callable[..., Any]] = {
    "array": _read_array,
    "float": _read_float,
    "index": _read_index,
    "missing": _read_missing,
    "table": _read_table,
    "time": _read_time,
}
