"""Tables of the times measured on a GPU, for the summary.md of a call and for docs/dev/measured.md (tools/figures)."""

# Prefixes of the names of whole jobs. All other rows are ops.
JOBS = ("sft ", "rl ", "train-step", "generate", "decode")
COMPARED = ["peer", "peer's ms", "peer / ours"], ["predicted ms (bound by)", "predicted / measured", "MHz"]


def timed(rows):
    """Returns the rows that contain a time, as two lists: ops and jobs."""
    rows = [row for row in rows if row.get("ours_ms") and row.get("flops") is not None and row["name"] != "parity"]
    return [[row for row in rows if row["name"].startswith(JOBS) == jobs] for jobs in (False, True)]


def named(row):
    """Returns the name of a row. The variant is added only for mma.sync, because wgmma is the expected variant on a
    Hopper GPU."""
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
    return ([row.get("peer") or "", ms(peer), over(peer, ours)],
            [ms(predicted) + bound, over(predicted, ours), str(row.get("clock_mhz") or "")])


def rate(row, job):
    """Returns the rate for the resource of the data sheet that limits the op: memory bandwidth, otherwise arithmetic.
    Without known peak rates it is the arithmetic rate. For jobs the arithmetic rate is given as MFU."""
    moved = row.get("bytes") or 0.0
    if row.get("peak_flops") and moved / row["peak_bytes"] > row["flops"] / row["peak_flops"]:
        return f"{moved / row['ours_ms'] / 1e6:.0f} GB/s"
    return mfu(row) if job else f"{row['flops'] / row['ours_ms'] / 1e9:.1f} TFLOP/s"


def table(head, rows):
    return [f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]] if rows else []


def op_table(rows):
    beside, predicted = COMPARED
    return table(["name", "shape", "ms", *beside, "rate", *predicted],
                 [[named(row), row["shape"], f"{row['ours_ms']:.3f}", *peer, rate(row, False), *plan]
                  for row in rows for peer, plan in [compared(row)]])


def job_table(rows):
    beside, predicted = COMPARED
    tokens = lambda row: f"{row['tokens_per_sec']:,.0f}" if row.get("tokens_per_sec") else ""  # noqa: E731
    return table(["job", "shape", "ms", "tokens/s", "MFU or GB/s", *beside, *predicted],
                 [[named(row), row["shape"], f"{row['ours_ms']:.1f}", tokens(row), rate(row, True), *peer, *plan]
                  for row in rows for peer, plan in [compared(row)]])


def gap(row):
    """Returns the measured time divided by the smaller of the peer's time and the predicted time, or None without
    either."""
    known = [row[key] for key in ("peer_ms", "predicted_ms") if row.get(key)]
    return row["ours_ms"] / min(known) if known else None


def gaps(rows):
    """Returns the rows that have a gap, the largest first. The second kernel variant of an op is left out, because it
    exists for comparison only."""
    found = [row for row in rows if "body" not in row and gap(row)]
    return sorted(found, key=gap, reverse=True)
