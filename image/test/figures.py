"""What the tests measure, and the table of it in docs/image.md."""

import re
from pathlib import Path

MARKERS = "<!-- figures: begin -->", "<!-- figures: end -->"


class Figures(dict[str, object]):
    """Measured values by what they are, in the order in which they came; numbers are seconds."""

    def publish(self, page: Path) -> None:
        """Write a table between the markers of a page."""
        rows = "".join(
            f"| {what} | {f'{value:.1f} s' if isinstance(value, float) else value} |\n"
            for what, value in self.items()
        )
        table = f"{MARKERS[0]}\n| measured by `make image-test` | |\n| --- | --- |\n{rows}{MARKERS[1]}"
        page.write_text(
            re.sub(f"{MARKERS[0]}.*{MARKERS[1]}", lambda _: table, page.read_text(), flags=re.DOTALL)
        )
