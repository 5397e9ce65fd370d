"""One option chain as the bytes of one file, Parquet or gzipped CSV, and back.

The file is a table that anything reads: the canonical columns, the rule that each row
falls under (`rule`, "used" or one of `relu_options.market_data.cleaning.RULES`), and
the labels of an index that is not simply counted. A header holds what else a chain
knows: in the metadata of a Parquet file, in the first line of a CSV file.

What is damaged is never read as something else. The header has a digest: of the whole
file in Parquet; of the first line in CSV, whose rest gzip has a checksum of.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.files import UNSEALED, check_seal, seal
from relu_options.market_data.chain import OptionChain
from relu_options.market_data.cleaning import RULE_CODES, RULE_NAMES

FORMAT = "relu_options.OptionChain/1"
PARTS = {"parquet": "part.parquet", "csv": "part.csv.gz"}
"""Formats of files, each with the name of its files."""

_HEADER = b"relu_options"  # key of the header in the metadata of a Parquet file
_NOT_NAMED = "__HIVE_DEFAULT_PARTITION__"  # Hive's name of what is missing
_RULE, _LABEL, _UNDERLYING = "rule", "label", "underlying"
_TEXTS = ("str", "object", "string")
_LONGEST = 255  # bytes of a file's name that file systems have room for
# What a bad file raises.
_DAMAGES = (ValueError, EOFError, OSError, zlib.error, LookupError)
_PLAIN = "fiubM"  # numbers, flags and times: the kinds of dtypes that are stored


@dataclass(frozen=True)
class StoredChain:
    """The file of one chain, as bytes: what travels to the process that reads it.

    Attributes:
        name: Its path in the history, which says format, date and underlying.
        content: Its bytes.

    Examples:
        >>> from relu_options.simulation import bundled_chain
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

    def header(self) -> dict[str, Any]:
        """Its header: among others `rows`, `underlying_price`, `quote_time`.

        Raises:
            QuoteError: If the file is damaged, or not one of a history.
            ImportError: If it is Parquet and pyarrow is not installed.

        Examples:
            >>> from relu_options.simulation.bundled import bundled_history
            >>> bundled_history().stored("2025-01-02").header()["underlying_price"]
            5000.0
        """
        return self._decoded(_header_of)

    def chain(self) -> OptionChain:
        """The chain.

        Raises:
            QuoteError: If the file is damaged, or not one of a history.
            ImportError: If it is Parquet and pyarrow is not installed.
        """
        return self._decoded(_chain_of, self.underlying)

    def _decoded(self, decode: Callable[..., Any], *arguments: Any) -> Any:
        """What a function makes of the bytes and their format."""
        file_format = "csv" if Path(self.name).name == PARTS["csv"] else "parquet"
        try:
            return decode(self.content, file_format, *arguments)
        except _DAMAGES as error:
            raise QuoteError(
                f"{self.name} cannot be read: {error}; append the chain of "
                f"{self.date:%Y-%m-%d} again with `overwrite=True`, or delete the file"
            ) from error


def part_name(underlying: str | None, date: str, file_format: str) -> str:
    """The path of a chain in a history.

    Raises:
        QuoteError: If no folder can have the name of the underlying.

    Examples:
        >>> part_name("BRK/B", "2025-03-14", "parquet")
        'underlying=BRK%2FB/date=2025-03-14/part.parquet'
    """
    return f"{underlying_folder(underlying)}/date={date}/{PARTS[file_format]}"


def underlying_folder(underlying: str | None) -> str:
    """The name of the folder of an underlying, escaped as in an address.

    Small letters are escaped too, since some file systems do not tell them from
    capitals, and a last dot, which some drop.

    Raises:
        QuoteError: If no folder can have such a name.

    Examples:
        >>> underlying_folder(None), underlying_folder("BRKb")
        ('underlying=__HIVE_DEFAULT_PARTITION__', 'underlying=BRK%62')
    """
    if underlying is None:
        return f"{_UNDERLYING}={_NOT_NAMED}"
    try:
        text = quote(underlying, safe="")
    except UnicodeEncodeError as error:
        raise QuoteError(
            f"the underlying {underlying!r} is no text: {error}; rename it"
        ) from error
    text = re.sub(r"%..|[a-z]|\.$|^_", _escape, text)
    room = _LONGEST - len(_UNDERLYING) - 1
    if not 0 < len(text) <= room:
        raise QuoteError(
            f"the underlying {underlying[:20]!r} of {len(underlying)} characters "
            f"cannot name a folder, which has room for 1 to {room}, and for a third of "
            "others than capitals, digits, '-', '.', '_' and '~'; rename it"
        )
    return f"{_UNDERLYING}={text}"


def _escape(found: re.Match[str]) -> str:
    """A character as a percent sign and two digits, where it is not yet."""
    text = found[0]
    return text if len(text) > 1 else f"%{ord(text):02X}"


def underlying_of(folder: str) -> str | None:
    """The underlying of a folder's name.

    Raises:
        QuoteError: If `underlying_folder` makes no such name.

    Examples:
        >>> underlying_of("underlying=BRK%2FB")
        'BRK/B'
    """
    text = folder.partition("=")[2]
    underlying = None if text == _NOT_NAMED else unquote(text)
    if not text or underlying_folder(underlying) != folder:
        right = f"{underlying_folder(underlying)!r}" if text else "of one"
        raise QuoteError(
            f"the folder {folder!r} of a history is not named as those of underlyings "
            f"are; rename it {right}, or move it elsewhere"
        )
    return underlying


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
        >>> from relu_options.simulation import bundled_chain
        >>> text = gzip.decompress(encode_chain(bundled_chain(), "csv")).decode()
        >>> text[:41]
        '# {"format": "relu_options.OptionChain/1"'
    """
    table, labels = _table_of(chain)
    kinds = {name: _kind(column) for name, column in table.items()}
    said = chain.table if len(chain) else chain.rows  # a chain that has expired says it
    price = said.get("underlying_price", pd.Series(dtype=float)).dropna().unique()
    time, only = chain.quote_time, chain._only_slice
    if only is not None and isinstance(only[0], pd.Timestamp):
        only = only[0].isoformat(), only[1]
    unnamed = np.flatnonzero(chain.rows[_UNDERLYING].isna())
    header = {
        "format": FORMAT,
        "rows": len(table),
        "underlying_price": float(price[0]) if len(price) == 1 else None,
        "quote_time": None if time is None else time.isoformat(),
        "notes": chain.notes,
        "layout": chain.layout,
        "slice": only,
        "strange_types": chain.strange_types,
        "expiry_given": chain.expiry_given,
        "kernel": chain.kernel,
        "columns": list(chain.rows.columns),
        "kinds": kinds,
        "labels": labels,
        "rows_without_underlying": unnamed.tolist(),
        "digest": UNSEALED,
    }
    text = json.dumps(header).encode()
    if file_format == "csv":
        rows = table.to_csv(index=False, lineterminator="\n").encode()
        return gzip.compress(b"# %s\n%s" % (seal(text), rows), mtime=0)
    return seal(_to_parquet(table, text))


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


def _to_parquet(table: pd.DataFrame, header: bytes) -> bytes:
    pa, parquet = _pyarrow()
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    plain = {pa.large_string(): pa.string(), pa.null(): pa.string()}
    fields = [one.with_type(plain.get(one.type, one.type)) for one in arrow.schema]
    arrow = arrow.cast(pa.schema(fields, metadata={_HEADER: header}))
    stream = io.BytesIO()
    # For other readers, which do not know of the digest, pages have checksums.
    parquet.write_table(arrow, stream, compression="zstd", write_page_checksum=True)
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


def _header_of(content: bytes, file_format: str) -> dict[str, Any]:
    """The header of a file's bytes."""
    if file_format == "csv":
        with gzip.open(io.BytesIO(content)) as file:
            return _csv_header(file.readline())
    check_seal(content)
    _, parquet = _pyarrow()
    metadata = parquet.read_metadata(io.BytesIO(content)).metadata or {}
    return _parse_header(metadata.get(_HEADER, b"{}"))


def _chain_of(content: bytes, file_format: str, underlying: str | None) -> OptionChain:
    """The chain of a file's bytes."""
    if file_format == "csv":
        first, _, rest = gzip.decompress(content).partition(b"\n")
        header = _csv_header(first)
        # Numbers are read as text first: pandas versions differ in the last digit.
        table = pd.read_csv(
            io.BytesIO(rest), dtype="str", keep_default_na=False, na_values=[""]
        )
    else:
        check_seal(content)
        _, parquet = _pyarrow()
        arrow = parquet.ParquetFile(io.BytesIO(content)).read(use_threads=False)
        header = _parse_header((arrow.schema.metadata or {}).get(_HEADER, b"{}"))
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
        strange_types=tuple(header.get("strange_types", ())),
        expiry_given=header.get("expiry_given", False),
        kernel=header.get("kernel", "auto"),
    )


def _csv_header(line: bytes) -> dict[str, Any]:
    """The header from the first line."""
    text = line.strip().removeprefix(b"# ")
    check_seal(text)
    return _parse_header(text)


def _parse_header(text: bytes) -> dict[str, Any]:
    """The header from its JSON text, whose digest has been checked."""
    header = json.loads(text)
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
