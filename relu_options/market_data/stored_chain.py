"""One option chain as the bytes of one file, Parquet or gzipped CSV, and back.

The file is a table that anything reads: the canonical columns, the rule that each row
falls under (`rule`, "used" or one of `relu_options.market_data.cleaning.RULES`), and
the labels of an index that is not simply counted. A header holds what else a chain
knows: in the metadata of a Parquet file, in the first line of a CSV file.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.market_data.chain import OptionChain
from relu_options.market_data.cleaning import RULE_CODES, RULE_NAMES

FORMAT = "relu_options.OptionChain/1"
PARTS = {"parquet": "part.parquet", "csv": "part.csv.gz"}
"""Formats of files, each with the name of its files."""

_HEADER = b"relu_options"  # key of the header in the metadata of a Parquet file
_NOT_NAMED = "__HIVE_DEFAULT_PARTITION__"  # Hive's name of what is missing
_RULE, _LABEL, _UNDERLYING = "rule", "label", "underlying"
_TEXTS = ("str", "object", "string")
_DAMAGES = (ValueError, EOFError, OSError, zlib.error)  # what a bad file raises
_PLAIN = "fiubM"  # numbers, flags and times: the kinds of dtypes that are stored


@dataclass(frozen=True)
class StoredChain:
    """The file of one chain, as bytes: what travels to the process that reads it.

    Attributes:
        name: Its path in the history, which says format, date and underlying.
        content: Its bytes.

    Examples:
        >>> from relu_options.market_data import bundled_chain
        >>> chain = bundled_chain()
        >>> stored = StoredChain(part_name("SIM", "2025-03-14", "csv"),
        ...                      encode_chain(chain, "csv"))
        >>> stored.name
        'underlying=SIM/date=2025-03-14/part.csv.gz'
        >>> stored.chain().rows.equals(chain.rows)
        True
    """

    name: str
    content: bytes = field(repr=False)

    @property
    def date(self) -> pd.Timestamp:
        """The trade date."""
        return pd.Timestamp(Path(self.name).parent.name.partition("=")[2])

    @property
    def underlying(self) -> str | None:
        """What the options are written on, if known."""
        return underlying_of(Path(self.name).parts[-3])

    @cached_property
    def digest(self) -> str:
        """A fingerprint of the bytes."""
        return blake2b(self.content, digest_size=16).hexdigest()

    def chain(self) -> OptionChain:
        """The chain.

        Raises:
            QuoteError: If the file is damaged, or not one of a history.
            ImportError: If it is Parquet and pyarrow is not installed.
        """
        try:
            return _decode(self.content, Path(self.name).name, self.underlying)
        except (*_DAMAGES, LookupError) as error:
            raise QuoteError(
                f"{self.name} cannot be read: {error}; append the chain of "
                f"{self.date:%Y-%m-%d} again with `overwrite=True`, or delete the file"
            ) from error


def part_name(underlying: str | None, date: str, file_format: str) -> str:
    """The path of a chain in a history; names are escaped as in an address.

    Examples:
        >>> part_name("BRK/B", "2025-03-14", "parquet")
        'underlying=BRK%2FB/date=2025-03-14/part.parquet'
    """
    return f"{underlying_folder(underlying)}/date={date}/{PARTS[file_format]}"


def underlying_folder(underlying: str | None) -> str:
    """The name of the folder of an underlying.

    Examples:
        >>> underlying_folder(None)
        'underlying=__HIVE_DEFAULT_PARTITION__'
    """
    text = _NOT_NAMED if underlying is None else quote(underlying, safe="")
    return f"{_UNDERLYING}={text}"


def underlying_of(folder: str) -> str | None:
    """The underlying of a folder's name.

    Examples:
        >>> underlying_of("underlying=BRK%2FB")
        'BRK/B'
    """
    text = folder.partition("=")[2]
    return None if text == _NOT_NAMED else unquote(text)


def encode_chain(chain: OptionChain, file_format: str) -> bytes:
    """A chain as the bytes of a file, the same every time.

    In CSV a text of no letters comes back as missing.

    Args:
        chain: The chain.
        file_format: "parquet" or "csv".

    Raises:
        QuoteError: If it holds values that cannot be stored.
        ImportError: If the format is Parquet and pyarrow is not installed.

    Examples:
        >>> from relu_options.market_data import bundled_chain
        >>> text = gzip.decompress(encode_chain(bundled_chain(), "csv")).decode()
        >>> text[:41]
        '# {"format": "relu_options.OptionChain/1"'
    """
    table, labels = _table_of(chain)
    kinds = {name: _kind(column) for name, column in table.items()}
    used = chain.table.get("underlying_price", pd.Series(dtype=float)).dropna().unique()
    time, only = chain.quote_time, chain._only_slice
    if only is not None and isinstance(only[0], pd.Timestamp):
        only = only[0].isoformat(), only[1]
    unnamed = np.flatnonzero(chain.rows[_UNDERLYING].isna())
    header = {
        "format": FORMAT,
        "rows": len(table),
        "underlying_price": float(used[0]) if len(used) == 1 else None,
        "quote_time": None if time is None else time.isoformat(),
        "notes": chain.notes,
        "layout": chain.layout,
        "slice": only,
        "columns": list(chain.rows.columns),
        "kinds": kinds,
        "labels": labels,
        "rows_without_underlying": unnamed.tolist(),
    }
    text = json.dumps(header)
    if file_format == "csv":
        text = f"# {text}\n{table.to_csv(index=False, lineterminator=chr(10))}"
        return gzip.compress(text.encode(), mtime=0)
    return _to_parquet(table, text)


def read_header(path: Path) -> dict[str, Any]:
    """The header of a file: among others `rows`, `underlying_price`, `quote_time`.

    Raises:
        QuoteError: If the file is damaged.

    Examples:
        >>> import tempfile
        >>> from relu_options.market_data import bundled_chain
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "part.csv.gz"
        ...     _ = path.write_bytes(encode_chain(bundled_chain(), "csv"))
        ...     read_header(path)["underlying_price"]
        5000.0
    """
    try:
        if path.name == PARTS["csv"]:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                return _parse_header(file.readline())
        from pyarrow import parquet

        metadata = parquet.read_metadata(path).metadata or {}
        return _parse_header(metadata.get(_HEADER, b"").decode())
    except _DAMAGES as error:
        raise QuoteError(
            f"{path} cannot be read: {error}; append its chain again with "
            "`overwrite=True`, or delete the file"
        ) from error


def _table_of(chain: OptionChain) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table to store, and how to make its labels an index again."""
    rows, index = chain.rows, chain.rows.index
    labels: dict[str, Any] = {"names": list(index.names)}
    columns: dict[str, pd.Series] = {}
    if isinstance(index, pd.RangeIndex):
        labels["range"] = index.start, index.stop, index.step
    else:
        for level in range(index.nlevels):
            values = index.get_level_values(level)
            columns[f"{_LABEL}_{level}"] = pd.Series(values.array)
    taken = {*columns, _RULE, "date"}.intersection(rows.columns)
    if taken:
        raise QuoteError(
            f"columns {sorted(taken)} have names that a history gives to its own; "
            "rename them"
        )
    # The underlying is the name of the folder.
    rest = rows.drop(columns=_UNDERLYING).reset_index(drop=True)
    columns |= {str(name): rest[name] for name in rest}
    columns[_RULE] = pd.Series(np.take(RULE_NAMES, chain.codes), dtype="str")
    return pd.DataFrame(columns), labels


def _kind(column: pd.Series) -> str:
    """The name of the dtype of a column that can be stored."""
    name = str(column.dtype)
    if name == "object":
        stored = column.dropna().map(lambda value: isinstance(value, str)).all()
    else:
        plain = getattr(column.dtype, "kind", "O") in _PLAIN and name[0].islower()
        stored = plain or name in _TEXTS
    if not stored:
        raise QuoteError(
            f"column or labels {column.name!r} of dtype {name} cannot be stored; "
            "make them numbers, times or text, labels by `reset_index`"
        )
    return name


def _to_parquet(table: pd.DataFrame, header: str) -> bytes:
    pa, parquet = _pyarrow()
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    plain = {pa.large_string(): pa.string(), pa.null(): pa.string()}
    fields = [one.with_type(plain.get(one.type, one.type)) for one in arrow.schema]
    arrow = arrow.cast(pa.schema(fields, metadata={_HEADER: header.encode()}))
    stream = io.BytesIO()
    parquet.write_table(arrow, stream, compression="zstd")
    return stream.getvalue()


def _pyarrow() -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            "Parquet needs pyarrow: `pip install relu_options[parquet]`; or write CSV, "
            "as `ChainHistory(path, file_format='csv')`"
        ) from error
    return pa, parquet


def _decode(content: bytes, name: str, underlying: str | None) -> OptionChain:
    """The chain of a file's bytes."""
    if name == PARTS["csv"]:
        first, _, rest = gzip.decompress(content).decode().partition("\n")
        header = _parse_header(first)
        # Numbers are read as text first: pandas versions differ in the last digit.
        table = pd.read_csv(
            io.StringIO(rest), dtype="str", keep_default_na=False, na_values=[""]
        )
    else:
        _, parquet = _pyarrow()
        arrow = parquet.ParquetFile(io.BytesIO(content)).read(use_threads=False)
        header = _parse_header((arrow.schema.metadata or {}).get(_HEADER, b"").decode())
        table = arrow.replace_schema_metadata().to_pandas(use_threads=False)
    if len(table) != header["rows"]:
        raise ValueError(f"{len(table)} rows where {header['rows']} were written")
    kinds = header["kinds"]
    columns = {key: _restored(table[key], kind) for key, kind in kinds.items()}
    rules = columns.pop(_RULE)
    if not rules.isin(RULE_CODES).all():
        raise ValueError("it has rules that are unknown here")
    codes = rules.map(RULE_CODES).to_numpy(np.int8)
    names = pd.Series(underlying, index=table.index, dtype="str")
    names.iloc[header["rows_without_underlying"]] = None
    columns[_UNDERLYING] = names
    rows = pd.DataFrame({key: columns[key] for key in header["columns"]})
    rows.index = _index(columns, header["labels"])
    time, only = header["quote_time"], header["slice"]
    if only is not None:
        expiry = pd.Timestamp(only[0]) if isinstance(only[0], str) else only[0]
        only = expiry, only[1]
    return OptionChain(
        rows=rows,
        codes=codes,
        quote_time=None if time is None else pd.Timestamp(time),
        notes=tuple(header["notes"]),
        _only_slice=only,
        layout=header.get("layout"),
    )


def _parse_header(text: str) -> dict[str, Any]:
    """The header from its JSON text, which in CSV is a comment."""
    header = json.loads(text.removeprefix("# ")) if text else {}
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"it has no header of the format {FORMAT!r}")
    return header


def _restored(column: pd.Series, kind: str) -> pd.Series:
    """A column as the dtype that was stored."""
    if str(column.dtype) == kind:
        return column
    if kind in _TEXTS:
        known = column.astype(object).where(column.notna(), np.nan)
        # Before pandas 3 a "str" was an object.
        return known if kind == "object" else known.astype(_text_dtype(kind))
    if kind.startswith("datetime64"):
        column = pd.to_datetime(column, utc="," in kind, format="ISO8601")
    if kind == "bool":
        column = column == "True"
    return column.astype(kind)  # type: ignore[arg-type]


def _text_dtype(kind: str) -> Any:
    """The dtype of text, which pandas 2 and 3 call differently."""
    return kind if kind == "string" else pd.Series([""], dtype="str").dtype


def _index(columns: dict[str, pd.Series], labels: dict[str, Any]) -> pd.Index:
    """The index of the rows."""
    names = labels["names"]
    if "range" in labels:
        return pd.RangeIndex(*labels["range"], name=names[0])
    levels = [columns[f"{_LABEL}_{level}"] for level in range(len(names))]
    if len(levels) == 1:
        return pd.Index(levels[0]).rename(names[0])
    return pd.MultiIndex.from_arrays(levels, names=names)
