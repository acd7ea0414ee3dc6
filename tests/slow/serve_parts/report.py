"""What the parts share: what was tried and seen, what is wrong, and numbers in words."""

import resource
import statistics


class Report:
    """Rows of the table at the end, and findings, which are printed as they are found."""

    def __init__(self):
        self.rows, self.findings = [], 0

    def add(self, what, count, seen):
        self.rows.append((what, count, seen))
        print(f"{what:<28} {count:>7}  {seen}", flush=True)

    def wrong(self, where, what):
        self.findings += 1
        print(f"FOUND {where}: {what}", flush=True)

    def table(self):
        lines = ["", f"{'what was tried':<28} {'times':>7}  what was seen"]
        return "\n".join(lines + [f"{what:<28} {count:>7}  {seen}" for what, count, seen in self.rows])


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def times(values):
    return f"p50 {1000 * quantile(values, 0.5):.0f} ms, p99 {1000 * quantile(values, 0.99):.0f} ms"


def median(values):
    return statistics.median(values) if values else float("nan")


def open_files_allowed():
    """As many as the system lets this process have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
