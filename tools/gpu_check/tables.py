"""Tables of the times measured on a GPU, for the summary.md of a call and for docs/dev/measured.md (bench/tools/figures)."""
import statistics

# Prefixes of the names of whole jobs. All other rows are ops.
JOBS = ("sft ", "rl ", "rl-step", "train-step", "generate", "decode")
SEEN = ["MHz by nvidia-smi", "W", "throttled by", "C"]
SPREAD = ["burst ms", "sustained ms"]
COMPARED = ["peer", "peer's ms", "peer / ours", "predicted ms (bound by)", "predicted / measured", "MHz"]


def timed(rows):
    """Returns the rows that contain a time, as two lists: ops and jobs."""
    rows = [fair(row) for row in rows if row.get("ours_ms") and row.get("flops") is not None and row["name"] != "parity"]
    return [[row for row in rows if row["name"].startswith(JOBS) == jobs] for jobs in (False, True)]


def fair(row):
    """Returns a row whose peer does the same work: a weight gradient is added to a sum. In old records it may only be written."""
    ways = {way: ms for way, ms in (row.get("peer_ways") or {}).items() if row["name"] == "linear wgrad" and isinstance(ms, float)}
    added = {ms: way for way, ms in ways.items() if not way.endswith("f32 product")}
    return row | {"peer": added[min(added)], "peer_ms": min(added)} if added else row


def named(row):
    """Returns the name of a row, with the variant if it is not wgmma, which is expected on a Hopper GPU."""
    return row["name"] + (" by mma.sync" if row.get("runs_by") == "mma.sync" else "")


def mfu(row):
    """Returns the MFU as text, or the TFLOP/s on a GPU whose peak rates omr does not know."""
    flops, peak = row["flops"] / row["ours_ms"] * 1e3, row.get("peak_flops")
    return f"{100 * flops / peak:.1f} %" if peak else f"{flops / 1e12:.1f} TFLOP/s"


def over(a, b):
    return f"{a / b:.2f}" if a and b else ""


def compared(row):
    """Returns the cells of COMPARED: the comparison with the peer and with the prediction of `omr plan`."""
    ours, peer, predicted = row["ours_ms"], row.get("peer_ms"), row.get("predicted_ms")
    ms = lambda value: f"{value:.3f}" if value else ""  # noqa: E731
    bound = f" ({row['bound']})" if predicted and row.get("bound") else ""
    return [row.get("peer") or "", ms(peer), over(peer, ours), ms(predicted) + bound, over(predicted, ours), clock(row)]


def clock(row):
    """Returns the clock that stamps measured. nvidia-smi, which older records asked, answers before a GPU lowers it."""
    return f"{row['clock_mhz']:.0f}{'' if row.get('clock') == 'measured' else ' (nvidia-smi)'}" if row.get("clock_mhz") else ""


def spread(row):
    """Returns the cells of SPREAD: the fastest of the first repetitions, and the median of the last ones."""
    return [f"{of(row[key]):.3f}" if row.get(key) else "" for of, key in ((min, "first_ms"), (statistics.median, "last_ms"))]


def seen(gpu):
    return [str(gpu.get("mhz", "")), str(gpu.get("watts", "")), ", ".join(gpu.get("throttled_by", [])), str(gpu.get("celsius", ""))]


def rate(row, job):
    """Returns the rate of the resource that limits the op by the data sheet, if it is known: memory or arithmetic (MFU for jobs)."""
    moved = row.get("bytes") or 0.0
    if row.get("peak_flops") and moved / row["peak_bytes"] > row["flops"] / row["peak_flops"]:
        return f"{moved / row['ours_ms'] / 1e6:.0f} GB/s"
    return mfu(row) if job else f"{row['flops'] / row['ours_ms'] / 1e9:.1f} TFLOP/s"


def table(head, rows):
    """Returns the lines of a table without the columns that are empty."""
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    return [f"| {' | '.join(cells[i] for i in kept)} |" for cells in [head, ["---"] * len(head), *rows]] if rows else []


def turn_table(steps):
    """Returns a table of the programs that ran in turns, each beside the first one of its case."""
    first, rows = {}, [row for step in steps for row in step.get("turns", []) if "burst_ms" in row]
    beside = lambda row: over(first.setdefault((row["name"], row["shape"]), row)["sustained_ms"], row["sustained_ms"])  # noqa: E731
    return table(["in turns", "shape", "program", *SPREAD, "first / own", "MHz by stamps", *SEEN],
                 [[row["name"], row["shape"], row.get("peer") or row["side"], *(f"{row[key]:.3f}" for key in ("burst_ms", "sustained_ms")),
                   beside(row), str(row["clock_mhz"] or ""), *seen(row)] for row in rows])


def time_table(rows, jobs):
    """Returns a table of the times of ops, or of jobs."""
    number = lambda row, key, digits: f"{row[key]:,.{digits}f}" if row.get(key) else ""  # noqa: E731
    return table(["job" if jobs else "name", "shape", "ms", *SPREAD, "host's ms", "tokens/s", "MFU or GB/s" if jobs else "rate", *COMPARED],
                 [[named(row), row["shape"], f"{row['ours_ms']:.{1 if jobs else 3}f}", *spread(row), number(row, "host_ms", 1),
                   number(row, "tokens_per_sec", 0), rate(row, jobs), *compared(row)] for row in rows])


def gap(row):
    """Returns the measured time divided by the smaller of the peer's and the predicted time, or None without either."""
    known = [row[key] for key in ("peer_ms", "predicted_ms") if row.get(key)]
    return row["ours_ms"] / min(known) if known else None


def gaps(rows):
    """Returns the rows that have a gap, the largest first, without the second kernel variant of an op."""
    found = [row for row in rows if "body" not in row and gap(row)]
    return sorted(found, key=gap, reverse=True)
