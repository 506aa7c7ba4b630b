"""Derives the verdicts on which kernel variants, summation chains and micro-batches depend, from the output of
calibrate_wgmma, calibrate_sums and digests."""
import re

# Line printed by tests/runtime/kernels/calibrate_wgmma.rs: "  wgmma, normal numbers, n16 beside n256: 1024 of 1024 bits equal".
BITS = re.compile(r"^\s*wgmma, (.+): (\d+) of (\d+) bits equal$")
# Line printed by tests/runtime/kernels/calibrate_sums.rs: "  mma, a chain of 32: Cut(16, 2) gives 1024 of 1024".
MODEL = re.compile(r"^\s*(wgmma|mma), (.+): (\w+(?:\([\d, ]+\))?) gives (\d+) of (\d+)$")
# Line printed by tests/runtime/kernels/digests.rs: "  digest linear 9x136x72, wgmma: equal", "... differs" if only a digest is known,
# or "digest attention 131 + 3, hd128, wgmma: 12 of 121270 words differ".
DIGEST = re.compile(r"^\s*digest (.+): (equal|differs|(\d+) of (\d+) words differ)$")
# Comparisons that must be equal if all wgmma tiles share one arithmetic: every width that is used, and both roles of
# each operand.
NEEDED = ["n16 beside n256", "n32 beside n256", "n64 beside n256", "n96 beside n256", "n128 beside n256",
          "n192 beside n256", "operands swapped", "a in registers"]


def kept(output):
    """Returns the lines of a test's output that `verdicts` reads."""
    return [line.strip() for line in output.splitlines() if BITS.match(line) or MODEL.match(line) or DIGEST.match(line)]


def answer(found):
    """Returns "yes", or a list of the comparisons that are not equal."""
    wrong = [f"{what} ({same} of {all_})" for what, (same, all_) in found.items() if same != all_]
    return "yes" if not wrong else "NO: " + ", ".join(wrong)


def predicted(found):
    """Returns how many results have the bits that the emulator predicted (tools/digests), and which have not."""
    other = [f"{name}{f' ({what})' if what != 'differs' else ''}" for name, what in found.items() if what != "equal"]
    share = f"{len(found) - len(other)} of {len(found)}"
    return ("not known" if not found else f"yes, {share}" if not other else f"{share}; other bits: {', '.join(other)}")


def verdicts(lines):
    bits, models, digests = {}, {}, {}
    for line in lines:
        if found := BITS.match(line):
            bits[found[1]] = int(found[2]), int(found[3])
        elif found := MODEL.match(line):
            models.setdefault((found[1], found[3]), {})[found[2]] = int(found[4]), int(found[5])
        elif found := DIGEST.match(line):
            digests[found[1]] = found[2]
    mma = {what: counts for what, counts in bits.items() if what.endswith("mma.sync")}
    own = {what: counts for what, counts in bits.items() if what not in mma}
    missing = [what for what in NEEDED if not any(known.endswith(what) for known in own)]
    first = f"{answer(own)} ({len(own)} comparisons)" if not missing else f"not known: {', '.join(missing)}"
    second = answer(mma) if mma else "not known"
    sums = []
    for unit in ("mma", "wgmma"):
        shares = {model: [sum(n) for n in zip(*counts.values())] for (of, model), counts in models.items() if of == unit}
        best = sorted(shares.items(), key=lambda share: share[1][1] - share[1][0])[:1]
        sums += [f"{unit} as {model}, {same} of {all_} sums" + ("" if same == all_ else " (no model gives all)") for model, (same, all_) in best]
    return [f"wgmma agrees with itself over widths n16 to n256 and operand roles: {first}",
            f"wgmma gives the bits of mma.sync: {second}",
            f"a k16 step is summed: {', '.join(sums) or 'not known'}",
            f"results have the predicted bits: {predicted(digests)}"]
