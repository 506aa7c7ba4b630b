"""Parses machine code as printed by `nvdisasm -c`: kernels, their loops, and the properties of a main loop that
determine its speed."""
import collections
import re

# Tile of each GEMM kernel, by the end of the kernel's name: rows, columns, number of math warps.
TILES = {"wide": (128, 256, 8), "square": (128, 128, 8), "half": (64, 128, 4), "short": (64, 64, 4), "narrow": (64, 32, 4), "slim": (64, 16, 4),
         "m128": (128, 128, 4), "m64": (64, 64, 4), "m16": (16, 64, 4)}
# The same for kernels that compute logits, which process segments of 128 vocabulary ids.
LOGITS = TILES | {"short": TILES["half"]}


def kernels(text):
    """Returns the text of each kernel."""
    parts = re.split(r"^\.text\.(\w+):", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def loops(body):
    """Returns the loops of a kernel, shortest first: first line, last line, and the instructions without their
    predicates."""
    lines, labels, spans = [], {}, []
    for line in body.splitlines():
        if label := re.match(r"^(\.L_x_\d+):", line):
            labels[label[1]] = len(lines)
        elif ins := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?(.*?)\s*;", line):
            lines.append(ins[1])
    for end, ins in enumerate(lines):
        target = re.search(r"BRA.*`\((\.L_x_\d+)\)", ins)
        if target and labels.get(target[1], end + 1) <= end:
            spans.append((labels[target[1]], end))
    spans.sort(key=lambda span: span[1] - span[0])
    return [(begin, end, lines[begin : end + 1]) for begin, end in spans]


def main_loop(body):
    """Returns the instructions of the shortest loop with wgmma products, or an empty list."""
    return next((ins for _, _, ins in loops(body) if any(i.startswith("HGMMA") for i in ins)), [])


def overlapped(instructions, name):
    """Counts the instructions of this name between the wait for all products but the newest and the wait for all
    products."""
    waits = [i for i, ins in enumerate(instructions) if ins.startswith("WARPGROUP.DEPBAR")]
    some = next((i for i in waits if not instructions[i].endswith(" 0x0")), None)
    last = next((i for i in waits if some is not None and i > some and instructions[i].endswith(" 0x0")), some)
    return sum(ins.startswith(name) for ins in instructions[some:last]) if some is not None else 0


def chains(instructions):
    """Returns the number of products between each two waits. If each product waits for the previous one, all numbers
    are 1."""
    counts = [0]
    for ins in instructions:
        counts[-1] += ins.startswith("HGMMA")
        counts += [0] if "DEPBAR" in ins and counts[-1] else []
    return [n for n in counts if n]


def operations(counter):
    """Returns the multiplications and additions of a loop's products per warp, and True if the products are wgmma."""
    wide = sum(n * 64 * int(re.match(r"HGMMA\.64x(\d+)x16", op)[1]) * 32 // 4 for op, n in counter.items() if op.startswith("HGMMA"))
    return (wide, True) if wide else (counter["HMMA"] * 16 * 8 * 32, False)


def shortened(ins):
    word = ins.split()[0]
    return word if word.startswith("HGMMA") else word.split(".")[0]


def within(one, other):
    return other[0] <= one[0] and one[1] <= other[1] and one != other


def meet(one, other):
    return other[0] <= one[1] and one[0] <= other[1]


def kernel_costs(name, body, tile=None):
    """Returns the properties of a GEMM kernel's main loop for `omr plan` (src/device/perf_model.rs defines them). Returns an
    empty dict for other kernels."""
    found = [(begin, end, collections.Counter(map(shortened, ins))) for begin, end, ins in loops(body)]
    multiplying = [loop for loop in found if operations(loop[2])[0]]
    if not multiplying:
        return {}
    # Keeps the loops that do not overlap a shorter loop with products. If several remain, they run one after another.
    # The code of a long wait is placed after the end of the kernel and jumps back into the middle, so it is not a loop.
    alone = [loop for i, loop in enumerate(multiplying) if not any(meet(small, loop) for small in multiplying[:i])]
    inner = [loop for loop in alone if not loop[2]["EXIT"]]
    main = sum((loop[2] for loop in inner), collections.Counter())
    flops, wgmma = operations(main)
    tiles = LOGITS if name.startswith(("sample", "linear_logprob")) else TILES
    tile = tile or next((tiles[end] for end in tiles if name.endswith("_" + end)), None) if wgmma else None
    fields = {"wgmma": int(wgmma), "loop": sum(main.values()), "flops": flops, "ldsm": main["LDSM"], "mufu": main["MUFU"]}
    if tile:
        fields["tile"] = "x".join(map(str, tile))
        if len(multiplying) > 1:
            # The epilogue is the loop over tiles without its main loop. The part that stores to the staging buffer is
            # counted as often as the tile's accumulators require.
            outer, (rows, columns, warps) = multiplying[1], tile
            stores = lambda loop: 512 * (loop[2]["STS"] > 0) + 256 * loop[2]["STSM"]
            slices = [l for l in found if within(l, outer) and not operations(l[2])[0] and stores(l)]
            once, stored = max(((sum(l[2].values()), stores(l)) for l in slices), default=(0, 512))
            fields["epilogue"] = round(sum(outer[2].values()) - fields["loop"] - once + once * rows * columns / (warps * stored))
    return fields
