"""The media type of a stored file, by its name alone. Pure.

No charset is told, since nobody knows that of a file; and a compressed file is what it is, so
that no Content-Encoding makes a client unpack it.
"""

from __future__ import annotations

from functools import cache
from mimetypes import MimeTypes

UNKNOWN = "application/octet-stream"  # RFC 9110, section 8.3
OFFICE = "application/vnd.openxmlformats-officedocument"

# Python's own table lacks these, is wrong about them, or changes from version to version.
OWN = {
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "json": "application/json",
    "ndjson": "application/x-ndjson",  # as our exports call it
    "jsonl": "application/x-ndjson",
    "geojson": "application/geo+json",  # RFC 7946
    "jsonld": "application/ld+json",
    "xml": "application/xml",  # text/xml would be US-ASCII to some (RFC 7303)
    "yaml": "application/yaml",  # RFC 9512
    "yml": "application/yaml",
    "toml": "application/toml",
    "sql": "application/sql",  # RFC 6922
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.file",
    "feather": "application/vnd.apache.arrow.file",
    "arrows": "application/vnd.apache.arrow.stream",
    "avro": "application/avro",
    "sqlite": "application/vnd.sqlite3",
    "sqlite3": "application/vnd.sqlite3",
    "gpkg": "application/geopackage+sqlite3",
    "xls": "application/vnd.ms-excel",
    "xlsx": f"{OFFICE}.spreadsheetml.sheet",
    "docx": f"{OFFICE}.wordprocessingml.document",
    "pptx": f"{OFFICE}.presentationml.presentation",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "gz": "application/gzip",  # RFC 6713; of .csv.gz and .tar.gz too
    "tgz": "application/gzip",
    "svgz": "application/gzip",
    "zst": "application/zstd",  # RFC 8878
    "bz2": "application/x-bzip2",
    "xz": "application/x-xz",
    "7z": "application/x-7z-compressed",
    "zip": "application/zip",
    "tar": "application/x-tar",
    "txt": "text/plain",
    "text": "text/plain",
    "log": "text/plain",
    "md": "text/markdown",  # RFC 7763
    "markdown": "text/markdown",
    "rtf": "application/rtf",
    "pdf": "application/pdf",
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",  # RFC 9239
    "mjs": "text/javascript",
    "svg": "image/svg+xml",
    "webp": "image/webp",
    "wav": "audio/vnd.wave",
    "m4a": "audio/mp4",
    "mkv": "video/matroska",
    "otf": "font/otf",  # RFC 8081, as the next three
    "ttf": "font/ttf",
    "woff": "font/woff",
    "woff2": "font/woff2",
}


def media_type(name: str) -> str:
    """The type of a file of that name: its last suffix decides, in any case."""
    stem, _, suffix = name.rpartition(".")
    return _types().get(suffix.lower(), UNKNOWN) if stem else UNKNOWN


@cache
def _types() -> dict[str, str]:
    # The table itself, not guess_type(): that takes a name for a URL, and what stands in a name
    # like "data:text/html,x" for its type. A fresh one knows nothing of the system's files.
    _, known = MimeTypes().types_map  # those registered at IANA are the second
    return {suffix.removeprefix("."): kind for suffix, kind in known.items()} | OWN
