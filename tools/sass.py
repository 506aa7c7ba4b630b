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


def parsed(body):
    """Returns the instructions of a kernel without their predicates, and its branches as pairs of positions."""
    lines, labels = [], {}
    for line in body.splitlines():
        if label := re.match(r"^(\.L_x_\d+):", line):
            labels[label[1]] = len(lines)
        elif ins := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?(.*?)\s*;", line):
            lines.append(ins[1])
    targets = [(at, re.search(r"BRA.*`\((\.L_x_\d+)\)", ins)) for at, ins in enumerate(lines)]
    return lines, [(at, labels[target[1]]) for at, target in targets if target and target[1] in labels]


def loops(body):
    """Returns the loops of a kernel, shortest first: first line, last line, and the instructions without their
    predicates."""
    lines, branches = parsed(body)
    spans = sorted(((begin, end) for end, begin in branches if begin <= end), key=lambda span: span[1] - span[0])
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


def operand_bytes(instructions):
    """Returns the bytes of shared memory that a warpgroup's wgmmas read: B, and A unless it is in registers."""
    shapes = [(int(m[1]), m[2]) for ins in instructions if (m := re.match(r"HGMMA\.64x(\d+)x16\S* R\d+, (\w+)", ins))]
    return sum(32 * (columns + 64 * (left == "gdesc")) for columns, left in shapes)


def masked(body, loop):
    """Returns the number of instructions that a loop's branch around the mask of attention skips in most steps."""
    lines, branches = parsed(body)
    inside = [(at, to) for at, to in branches if loop[0] <= at < to <= loop[1]]
    return max((to - at - 1 for at, to in inside if sum(ins.startswith("FSEL") for ins in lines[at:to]) >= 32), default=0)


def shortened(ins):
    word = ins.split()[0]
    return word if word.startswith("HGMMA") else word.split(".")[0]


def within(one, other):
    return other[0] <= one[0] and one[1] <= other[1] and one != other


def meet(one, other):
    return other[0] <= one[1] and one[0] <= other[1]


def iterations(instructions):
    """Returns the number of iterations of a loop that counts to a constant, or 1 for other loops."""
    limits = [m for ins in instructions if (m := re.match(r"ISETP\.\w+(?:\.U32)?\.AND P\d, PT, (R\d+)(?:\.reuse)?, (0x\w+), PT$", ins))]
    steps = [m for ins in instructions if (m := re.match(r"(?:VIADD|IADD3) (R\d+), \1(?:\.reuse)?, (0x\w+)(?:, RZ)?$", ins))]
    # A counter reaches its limit in steps. Exponentials and Philox also add constants, which are larger, to registers that
    # are compared. An unrolled loop compares another register than the one that it counts with.
    pairs = [(limit, step) for limit in limits for step in steps if limit[1] == step[1] and int(step[2], 16) <= int(limit[2], 16)] or list(zip(limits[-1:], steps[-1:]))
    return max((-(-int(limit[2], 16) // int(step[2], 16)) for limit, step in pairs[-1:]), default=1)


def executed(loop, found, main):
    """Returns the number of instructions outside of the main loop that a warp executes in one iteration of a loop. Branches
    count as if both sides ran, except for those that are named below."""
    inner = [l for l in found if within(l, loop) and not any(within(l, other) and within(other, loop) for other in found)]
    count, text = len(loop[2]), "\n".join(loop[2])
    for child in inner:
        code = "\n".join(child[2])
        count -= len(child[2])
        # Rows that are not aligned have a loop of their own with stores of two bytes.
        slow = "STG.E.U16" in code and text.count("STG.E") > code.count("STG.E")
        if child[:2] == main[:2] or slow:
            continue
        # The loop over warpgroups stores the results of one of them.
        count += executed(child, found, main) * (1 if "UTMASTG" in code else iterations(child[2]))
    # A slice is selected by branches: one iteration stores only its own sums.
    sums = text.count("STS.64")
    return count - (sums - sums // iterations(loop[2]) if "STSM" not in text and "HGMMA" not in text else 0)


def kernel_costs(name, body, tile=None):
    """Returns the properties of a GEMM kernel's main loop for `omr plan` (src/runtime/device/perf_model/mod.rs defines them). Returns an
    empty dict for other kernels."""
    found = loops(body)
    counted = [(loop, collections.Counter(map(shortened, loop[2]))) for loop in found]
    multiplying = [(loop, counter) for loop, counter in counted if operations(counter)[0]]
    if not multiplying:
        return {}
    # Keeps the loops that do not overlap a shorter loop with products. If several remain, they run one after another.
    # The code of a long wait is placed after the end of the kernel and jumps back into the middle, so it is not a loop.
    alone = [one for i, one in enumerate(multiplying) if not any(meet(small, one[0]) for small, _ in multiplying[:i])]
    inner = [one for one in alone if not one[1]["EXIT"]]
    main = sum((counter for _, counter in inner), collections.Counter())
    flops, wgmma = operations(main)
    tiles = LOGITS if name.startswith(("sample", "linear_logprob")) else TILES
    tile = tile or next((tiles[end] for end in tiles if name.endswith("_" + end)), None) if wgmma else None
    skipped = masked(body, inner[0][0]) if wgmma and not tile else 0
    fields = {"wgmma": int(wgmma), "loop": sum(main.values()) - skipped, "flops": flops, "ldsm": main["LDSM"], "mufu": main["MUFU"],
              "operands": sum(operand_bytes(loop[2]) for loop, _ in inner)}
    if tile:
        fields["tile"] = "x".join(map(str, tile))
        if len(multiplying) > 1:
            # The loop over tiles is the shortest one around the main loop that does not jump out of a long wait.
            loop = inner[0][0]
            outer = min((one for one, _ in multiplying if within(loop, one)), key=lambda one: (sum("EXIT" in ins for ins in one[2]), len(one[2])))
            fields["epilogue"] = executed(outer, found, loop)
            fields["resumed"] = sum(ins.startswith("LDG.E.64") for ins in outer[2][: loop[0] - outer[0]])
    return fields
