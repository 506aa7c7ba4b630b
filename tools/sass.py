"""Machine code as `nvdisasm -c` prints it: kernels, and the loops in them."""
import re


def kernels(text):
    """Kernel -> what stands of it."""
    parts = re.split(r"^\.text\.(\w+):", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def loops(body):
    """The loops of a kernel, shortest first: where each begins and ends, and its instructions without their predicates."""
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
    """The instructions of the shortest loop that multiplies by wgmma; none where there is no such loop."""
    return next((ins for _, _, ins in loops(body) if any(i.startswith("HGMMA") for i in ins)), [])


def overlapped(instructions, name):
    """How many instructions of this name stand between the wait for all products but the newest and that for all."""
    waits = [i for i, ins in enumerate(instructions) if ins.startswith("WARPGROUP.DEPBAR")]
    some = next((i for i in waits if not instructions[i].endswith(" 0x0")), None)
    last = next((i for i in waits if some is not None and i > some and instructions[i].endswith(" 0x0")), some)
    return sum(ins.startswith(name) for ins in instructions[some:last]) if some is not None else 0


def serialised(instructions):
    """True where products of one step wait for one another: a wait stands between them."""
    products = [i for i, ins in enumerate(instructions) if ins.startswith("HGMMA")]
    return any("DEPBAR" in ins for ins in instructions[products[0] : products[-1]]) if products else False
