#!/usr/bin/env python3
"""Sends the metrics of a run to Weights & Biases, MLflow or SwanLab.

    python3 DIR/reporters/report_metrics.py DIR --to wandb

sends the steps of DIR/metrics.jsonl that were not sent before, and ends. `omr sft`, `omr rl` and `omr recipe` write and
start this program for the names in the key report_to, with --follow: it then continues until its standard input is
closed, which happens when the run ends or is killed. DIR/reporters/NAME.json records what was sent. Accounts, servers, projects and
the offline modes are chosen with the variables of each service, such as WANDB_PROJECT, WANDB_MODE=offline,
MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME or SWANLAB_MODE=offline. The default project is omr.
"""

import sys

# The other files in the folder of this program are not modules. A run folder may come from someone else.
sys.path.pop(0)

import argparse
import fcntl
import importlib
import json
import math
import os
import re
import select
import uuid
from pathlib import Path

# Interval in seconds at which a followed file is read.
INTERVAL = 1.0
# Name of the metric with the time of a step, in seconds since 1970.
WALL_TIME = "timing_s/wall_time"
# Maximum numbers of entries in a request to MLflow, and maximum length of a parameter.
MLFLOW_METRICS, MLFLOW_PARAMS, MLFLOW_LENGTH = 1000, 100, 500


class Run:
    """A run directory: its name, its settings and what was sent of it."""

    def __init__(self, folder, to):
        self.folder = folder.resolve()
        self.place = self.folder / "reporters"
        self.state_path = self.place / f"{to}.json"
        self.state = {"id": uuid.uuid4().hex[:12], "step": -1}
        if self.state_path.exists():
            self.state = json.loads(self.state_path.read_text())
        self.group = self.folder.parent.name
        self.name = f"{self.group}/{self.folder.name}"
        self.settings = self._read_settings()

    def _read_settings(self):
        import yaml

        config = self.folder / "config.yaml"
        settings = yaml.safe_load(config.read_text()) if config.exists() else {}
        # The folder of a recipe records the starts of its stages.
        for folder in (self.folder, self.folder.parent):
            starts = folder / "starts.jsonl"
            if starts.exists():
                return {**settings, "start": json.loads(starts.read_text().splitlines()[-1])}
        return settings

    def save(self):
        path = self.state_path.with_suffix(".tmp")
        path.write_text(json.dumps(self.state) + "\n")
        path.replace(self.state_path)

    def is_finished(self):
        return (self.folder / "summary.json").exists()


class Lines:
    """Reads the complete lines that were added to a file, from its start again if the file was replaced."""

    def __init__(self, path):
        self.path, self.inode, self.offset = path, None, 0
        self.last_step = -1

    def read(self):
        try:
            file = open(self.path, "rb")
        except FileNotFoundError:
            return []
        with file:
            found = os.fstat(file.fileno())
            if found.st_ino != self.inode or found.st_size < self.offset:
                self.inode, self.offset = found.st_ino, 0
            file.seek(self.offset)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self.offset += len(data)
        return [json.loads(line) for line in data.splitlines()]


def flat(value, name=""):
    """Returns the entries of nested settings as (dotted name, text)."""
    if not isinstance(value, dict):
        return [(name, value if isinstance(value, str) else json.dumps(value))]
    join = lambda key: f"{name}.{key}" if name else str(key)
    return [entry for key, inner in value.items() for entry in flat(inner, join(key))]


class Wandb:
    @staticmethod
    def check(wandb):
        is_online = os.environ.get("WANDB_MODE", "online") in ("online", "shared")
        # Versions without this attribute are not asked, because wandb.login() needs the network.
        if is_online and hasattr(wandb, "api") and not wandb.api.api_key:
            sys.exit("no API key; run `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline")

    def __init__(self, wandb, run):
        named = {} if "WANDB_NAME" in os.environ else {"name": run.name}
        grouped = {} if "WANDB_RUN_GROUP" in os.environ else {"group": run.group}
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "omr"),
            id=run.state["id"],
            resume="allow",
            dir=run.place,
            config=run.settings,
            settings=wandb.Settings(console="off"),
            **named,
            **grouped,
        )
        # The server knows best which steps have arrived.
        if self.run.resumed:
            run.state["step"] = self.run.step - 1

    def send(self, steps):
        for step, time, values in steps:
            self.run.log({**values, "_timestamp": time}, step=step)

    def end(self, is_finished):
        self.run.finish(exit_code=0 if is_finished else 1)


class Mlflow:
    @staticmethod
    def check(mlflow):
        mlflow.MlflowClient()

    def __init__(self, mlflow, run):
        self.entities, self.client = importlib.import_module("mlflow.entities"), mlflow.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "omr")
        if "mlflow" in run.state:
            self.id = run.state["mlflow"]
            self.client.update_run(self.id, status="RUNNING")
            return
        experiment = self.client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.id = self.client.create_run(experiment_id, run_name=run.name).info.run_id
        params = [self.entities.Param(self.name(key), text[:MLFLOW_LENGTH]) for key, text in flat(run.settings)]
        for at in range(0, len(params), MLFLOW_PARAMS):
            self.client.log_batch(self.id, params=params[at : at + MLFLOW_PARAMS])
        run.state["mlflow"] = self.id

    @staticmethod
    def name(name):
        return re.sub(r"[^\w./ -]", "_", name)

    def send(self, steps):
        metrics = [
            self.entities.Metric(self.name(name), value, int(time * 1000), step)
            for step, time, values in steps
            for name, value in values.items()
        ]
        for at in range(0, len(metrics), MLFLOW_METRICS):
            self.client.log_batch(self.id, metrics=metrics[at : at + MLFLOW_METRICS])

    def end(self, is_finished):
        self.client.set_terminated(self.id, "FINISHED" if is_finished else "KILLED")


class Swanlab:
    @staticmethod
    def check(swanlab):
        pass

    def __init__(self, swanlab, run):
        self.run = swanlab.init(
            project=os.environ.get("SWANLAB_PROJECT", "omr"),
            experiment_name=run.name,
            config=run.settings,
            logdir=str(run.place / "swanlog"),
            id=run.state["id"],
            resume="allow",
        )

    def send(self, steps):
        for step, _, values in steps:
            self.run.log(values, step=step)

    def end(self, is_finished):
        self.run.finish(state="success" if is_finished else "crashed")


SERVICES = {"wandb": Wandb, "mlflow": Mlflow, "swanlab": Swanlab}


def check(names):
    for name in names:
        try:
            SERVICES[name].check(importlib.import_module(name))
        except SystemExit as error:
            sys.exit(f"{name}: {error}")
        except Exception as error:
            install = f"; pip install {name}" if isinstance(error, ImportError) else ""
            sys.exit(f"{name}: {error}{install}")


def new_steps(lines, run):
    """Returns the steps that were not sent: number, time and finite numbers."""
    steps = []
    for line in lines.read():
        step, time = line.pop("step"), line.pop(WALL_TIME, 0.0)
        lines.last_step = step
        is_number = lambda value: isinstance(value, (int, float)) and math.isfinite(value)
        if step > run.state["step"]:
            steps.append((step, time, {name: value for name, value in line.items() if is_number(value)}))
    return steps


def report(folder, name, follows):
    place = folder / "reporters"
    place.mkdir(exist_ok=True)
    with open(place / f"{name}.lock", "w") as lock:
        # Another process may still be sending the rest of an earlier start.
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = Run(folder, name)
        service = SERVICES[name](importlib.import_module(name), run)
        run.save()
        lines, is_open = Lines(folder / "metrics.jsonl"), follows
        while True:
            if steps := new_steps(lines, run):
                service.send(steps)
                run.state["step"] = steps[-1][0]
                run.save()
            if not is_open:
                break
            readable, _, _ = select.select([sys.stdin], [], [], INTERVAL)
            # After the input is closed, the last steps are read once more.
            is_open = not (readable and not os.read(sys.stdin.fileno(), 1))
        service.end(run.is_finished())
    if run.is_finished() and lines.last_step < run.state["step"]:
        sys.exit(
            f"{run.state_path} says that step {run.state['step']} was sent, but the run ended at step {lines.last_step};"
            " remove the file to send all steps as a new run"
        )
    print(f"{name}: sent the steps up to {run.state['step']} of {folder}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path, nargs="?", help="run directory")
    parser.add_argument("--to", nargs="+", required=True, choices=SERVICES, help="services")
    parser.add_argument("--follow", action="store_true", help="continue until the standard input is closed")
    parser.add_argument("--check", action="store_true", help="only check whether the services can be used")
    options = parser.parse_args()
    if options.check:
        return check(options.to)
    if options.dir is None or not options.dir.is_dir():
        parser.error(f"expected a run directory, found {options.dir}")
    for name in options.to:
        report(options.dir, name, options.follow)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        # Whoever started this program shows the last line.
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
