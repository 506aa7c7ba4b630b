"""Record of all results on a GPU: steps by name, each green (passed), red (failed), cut or skipped, with its notes and
rows. Later calls add to it. A result is replaced only by a new result of the same step."""
import json
import os
import re
import time

from . import plan, tables
from .base import ROOT
from .verdicts import verdicts

# Printed words for the states of a step.
WORDS = {"green": "passed", "red": "failed", "cut": "cut short", "skipped": "skipped"}


def paired(row):
    """Returns the key that matches a row with its peer. The number of recomputed layers is left out, because each side
    chooses it for itself."""
    return row["name"], re.sub(r", \d+ of \d+ layers recomputed$", "", row.get("shape") or "")


class Record:
    """Record of the steps for one `identity`: gpu, build, commit and device."""

    def __init__(self, out, identity, environment):
        self.out, self.identity, self.environment = out, identity, environment
        self.steps, self.calls, self.begun = {}, [], time.monotonic()

    def take(self, file):
        """Adds the steps of another record of the same binaries on the same GPU. Returns False if `file` is not such a
        record."""
        try:
            other = json.loads(file.read_text())
            steps = other["steps"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if any(other.get(key) != self.identity[key] for key in ("gpu", "build")):
            return False
        for name, step in steps.items():
            mine = self.steps.get(name)
            if mine is None or (mine["status"] != "green" and mine["when"] <= step["when"]):
                self.steps[name] = step
        self.calls += [call for call in other["calls"] if call not in self.calls]
        self.environment = self.environment or other["environment"]
        return True

    def earlier(self):
        """Adds all earlier results: those in the same folder and those of this checkout."""
        for file in [self.out / "results.json", *sorted((ROOT / "bench/results").glob("*/results.json"))]:
            self.take(file)

    def green(self, name):
        return self.steps.get(name, {}).get("status") == "green"

    def put(self, name, part, status, notes, rows=(), lines=(), peers=(), turns=(), seconds=0.0, gpu=None):
        rows = [row | {"commit": self.identity["commit"]} for row in rows]
        self.steps[name] = {"part": part, "status": status, "notes": list(notes), "rows": rows, "lines": list(lines),
                            "peers": list(peers), "turns": list(turns), "seconds": round(seconds, 1), "gpu": gpu or {},
                            "when": round(time.time(), 1)}
        self.write()

    def red(self):
        return [f"{name}: {'; '.join(step['notes']) or 'failed'}" for name, step in self.steps.items() if step["status"] == "red"]

    def rows(self):
        """Returns all rows, each extended with the results of its peer."""
        steps = self.steps.values()
        peers = {paired(peer): peer for step in steps for peer in step["peers"] if "peer_ms" in peer}
        beside = ("peer", "peer_ms", "peer_ways", "peer_clock_mhz")
        of = lambda row: peers.get(paired(row), {}) if "ours_ms" in row else {}  # noqa: E731
        return [row | {key: of(row)[key] for key in beside if key in of(row)} for step in steps for row in step["rows"]]

    def verdicts(self):
        return verdicts(line for step in self.steps.values() for line in step["lines"])

    def write(self):
        """Writes all results so far. Each file is replaced atomically, so that a killed call leaves complete files."""
        record = self.identity | {"verdicts": self.verdicts(), "red": self.red(), "rows": self.rows(),
                                  "environment": self.environment, "calls": self.calls, "steps": self.steps}
        for name, text in [("results.json", json.dumps(record, indent=1) + "\n"), ("summary.md", self.summary())]:
            new = self.out / f".{name}.new"
            new.write_text(text)
            os.replace(new, self.out / name)

    def summary(self):
        gpu, commit = self.identity["gpu"], self.identity["commit"]
        text = [f"# {gpu} at {commit}", ""]
        text += [f"{i}. {verdict}" for i, verdict in enumerate(self.verdicts(), 1)] + [""]
        if self.identity["device"] != "cuda":
            text += ["A dry run on the emulator. Its times say nothing about a GPU.", ""]
        text += [f"{'FAILED: ' + '; '.join(self.red()) if self.red() else 'No test failed.'}", ""]
        text += [f"- {line}" for line in self.calls + self.environment] + [""]
        text += [*self.step_table(), ""]
        return "\n".join(text + self.tables()) + "\n"

    def step_table(self):
        """Returns the steps with their limits in seconds (in a call), and what nvidia-smi saw meanwhile."""
        limits = {name: limit for parts in plan.CALLS.values() for steps in parts.values() for name, limit in steps.items()}
        return tables.table(
            ["part", "step", "limit", "s", "result", *tables.SEEN, "notes"],
            [[step["part"], name, str(limits.get(name.removeprefix("bench "), "")), f"{step['seconds']:.1f}", WORDS[step["status"]],
              *tables.seen(step.get("gpu") or {}), "; ".join(step["notes"])] for name, step in self.steps.items()])

    def tables(self):
        if self.identity["device"] != "cuda":
            return []
        ops, jobs = tables.timed(self.rows())
        text = [*tables.time_table(ops, False), "", *tables.time_table(jobs, True), "", *tables.turn_table(self.steps.values()), ""]
        largest = tables.gaps(ops + jobs)[:20]
        if largest:
            text += ["Largest gaps first: measured time divided by the smaller of the peer's time and the predicted time.", ""]
        return text + [f"- {tables.gap(row):.2f} {row['name']} {row['shape']}" for row in largest]
