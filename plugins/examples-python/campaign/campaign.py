"""Enricher in Python, from the interface alone: the campaign that a URL says it comes from.

Input: one field, a URL. Outputs, any of `source`, `medium`, `name`: its parameters `utm_source`, `utm_medium` and
`utm_campaign`, in lower case. The module `wit_world` is generated from plugin-sdk/wit/v0_1 when the component is built.
"""

from urllib.parse import parse_qs, urlsplit

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.enricher import Settings
from wit_world.imports.types import Column_Text, Metadata, TextColumn

PARAMETERS = {"source": "utm_source", "medium": "utm_medium", "name": "utm_campaign"}

# Longer URLs are not read: a batch of them must stay far from the deadline.
URL_BYTES_MAX = 2048


class Enricher(exports.Enricher):
    parameters: list[str] = []

    def describe(self) -> Metadata:
        return Metadata("campaign", "0.1.0", "The campaign a URL comes from, in Python", False)

    def configure(self, settings: Settings) -> None:
        if len(settings.input) != 1:
            raise Err(f"input: takes 1 field (a URL), but is given {len(settings.input)}")
        unknown = [name for name in settings.output if name not in PARAMETERS]
        if unknown:
            raise Err(f'output: there is no "{unknown[0]}"; known are {", ".join(PARAMETERS)}')
        if settings.config != "{}":
            raise Err("config: there are no fields")
        # On the class: every call gets an object of its own.
        Enricher.parameters = [PARAMETERS[name] for name in settings.output]

    def enrich(self, rows: int, input: list[TextColumn]) -> list[Column_Text]:
        queries = [query(url) for url in texts(input[0])]
        return [
            Column_Text(column([values.get(parameter) for values in queries]))
            for parameter in self.parameters
        ]


def query(url: str) -> dict[str, str]:
    if "utm_" not in url or len(url) > URL_BYTES_MAX:
        return {}
    try:
        return {key: values[0].lower() for key, values in parse_qs(urlsplit(url).query).items()}
    except ValueError:  # not a URL, or too many parameters
        return {}


def texts(column: TextColumn) -> list[str]:
    """The rows of a column; a row without a value is an empty text."""
    starts = [0, *column.ends]
    return [column.bytes[start:end].decode() for start, end in zip(starts, column.ends)]


def column(values: list[str | None]) -> TextColumn:
    # A half of a UTF-16 pair that a URL smuggles in cannot be said in UTF-8.
    texts = [(value or "").encode("utf-8", "replace") for value in values]
    ends, end = [], 0
    for text in texts:
        end += len(text)
        ends.append(end)
    nulls = [row for row, value in enumerate(values) if value is None]
    return TextColumn(b"".join(texts), ends, nulls)
