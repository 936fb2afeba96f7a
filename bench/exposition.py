"""The text that Prometheus reads, written in slices between which the event loop runs.

prometheus-client renders all labels of a sample anew at each scrape, which takes most of the time;
those of a site hardly ever change. So `Labels` are rendered once, and the rest is left to be the
client library's: its registry, its families, its collectors of the process.
"""

import asyncio
from functools import lru_cache
from time import perf_counter

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# The loop is never held for longer than this and one family.
SLICE_S = 0.001
_LABEL_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Labels(dict[str, str]):
    """The labels of a sample, and how they are written; not to be changed."""

    __slots__ = ("text",)

    def __init__(self, labels: dict[str, str]) -> None:
        super().__init__(labels)
        pairs = ",".join(f'{name}="{value.translate(_LABEL_ESCAPES)}"' for name, value in labels.items())
        self.text = f"{{{pairs}}}" if pairs else ""


@lru_cache(maxsize=1 << 16)
def labels(*pairs: tuple[str, str]) -> Labels:
    """Return the labels with these names and values, the same object for the same pairs."""
    return Labels(dict(pairs))


def family(name: str, kind: str, text: str) -> Metric:
    """Return an empty family; a counter's name is without `_total`, which its samples have."""
    return Metric(name, text, kind)


def add(metric: Metric, sample_labels: Labels, value: float) -> None:
    """Add a sample that has the name of its family."""
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    metric.samples.append(Sample(name, sample_labels, value))


def text_of(metric: Metric) -> str:
    """Return a family in the Prometheus text format 0.0.4."""
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    if metric.type == "info":
        name, kind = f"{metric.name}_info", "gauge"
    else:
        kind = "untyped" if metric.type == "unknown" else metric.type
    lines = [f"# HELP {name} {metric.documentation.translate(_HELP_ESCAPES)}\n# TYPE {name} {kind}\n"]
    for sample_name, known, value, *_ in metric.samples:
        text = known.text if isinstance(known, Labels) else Labels(known).text
        lines.append(f"{sample_name}{text} {value}\n")
    return "".join(lines)


async def exposition(registry: CollectorRegistry) -> bytes:
    """Return all families of a registry as text; the loop runs in between."""
    parts = []
    slice_ends = perf_counter() + SLICE_S
    for metric in registry.collect():
        parts.append(text_of(metric))
        if perf_counter() >= slice_ends:
            await asyncio.sleep(0)
            slice_ends = perf_counter() + SLICE_S
    return "".join(parts).encode()
