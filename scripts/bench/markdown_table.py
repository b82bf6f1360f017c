"""Tables of Markdown, printed as their rows come."""


class Table:
    """Prints its head at once, and each row when it is known."""

    def __init__(self, title: str, *columns: str) -> None:
        print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)

    def row(self, *cells: object) -> None:
        """Print one row."""
        print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)
