"""Draws README's drawings: docs/flow.svg, and docs/results.svg from bench/results."""
import json
import textwrap
from xml.sax.saxutils import escape

from ablation_tables import ROOT, ablations, differences, mean_and_half

# Baselines of docs/results.svg, in the order of its lines.
BASELINES = {"sft": "SFT (start)", "more-sft": "continued SFT", "taught": "teacher traces", "rft": "RFT", "raft": "RAFT"}
COLUMNS = [("pass@1", "temperature 1"), ("greedy", "greedy")]
EXAMPLE = ROOT / "bench/results/2026-11-25-charts-example/example.json"
WIDTH = 640
STYLE = """
  .paper { fill: #ffffff } .box { fill: #f2f4f7; stroke: #8a97a8 } .shared { fill: #e6f1ec; stroke: #2f7d5f }
  .axis { stroke: #8a97a8 } .bar { stroke: #2f7d5f; stroke-width: 3 } .dot { fill: #2f7d5f } .arrow { stroke: #51607a; fill: none; stroke-width: 1.5 }
  text { font-family: system-ui, sans-serif; font-size: 14px; fill: #1c2430 } .strong { font-weight: 700 } .small { font-size: 12.5px; fill: #51607a }
  .wrong { fill: #a33a2a } .right { fill: #1f6b4f }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #12161c } .box { fill: #1c232d; stroke: #5f6f85 } .shared { fill: #18302a; stroke: #58b391 } text { fill: #e8edf4 }
    .small { fill: #a7b5ca } .bar { stroke: #58b391 } .dot { fill: #58b391 } .wrong { fill: #f0907f } .right { fill: #7fd0b0 } .arrow { stroke: #a7b5ca }
  }
"""


def framed(title, body, height):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">\n'
            f'<title>{escape(title)}</title>\n<style>{STYLE}</style>\n<rect class="paper" width="{WIDTH}" height="{height}"/>\n'
            + "\n".join(body) + "\n</svg>\n")


def text(x, y, words, kind="", anchor="start"):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def results():
    """Draws the gain of RL over each baseline with its interval, and an example."""
    _, _, found = ablations("headline")
    body = [text(16, 28, "Gain of RL over each baseline, in points", "strong"),
            text(16, 47, f"digits, 3,000 questions, {len(found['rl'])} seeds; dot: mean, bar: 95 % interval (paired by seed)", "small")]
    left, width, low, high = 150, 220, -3, 12
    for column, (key, name) in enumerate(COLUMNS):
        x0 = left + column * (width + 20)
        at = lambda value, x0=x0: x0 + (value - low) / (high - low) * width
        body.append(text(x0 + width / 2, 70, name, "small", "middle"))
        body += [f'<line class="axis" x1="{at(0):.1f}" x2="{at(0):.1f}" y1="78" y2="{84 + 26 * len(BASELINES)}"/>']
        for line, stage in enumerate(BASELINES):
            mean, half = mean_and_half(differences(found, "rl", stage, lambda cell, key=key: cell[key]))
            y = 94 + 26 * line
            body += [f'<line class="bar" x1="{at(mean - half):.1f}" x2="{at(mean + half):.1f}" y1="{y}" y2="{y}"/>',
                     f'<circle class="dot" cx="{at(mean):.1f}" cy="{y}" r="5"/>']
        body += [text(at(tick), 102 + 26 * len(BASELINES), f"{tick:+d}" if tick else "0", "small", "middle") for tick in (0, 4, 8)]
    body += [text(left - 14, 99 + 26 * line, name, "", "end") for line, name in enumerate(BASELINES.values())]
    example = json.loads(EXAMPLE.read_text())
    top = 128 + 26 * len(BASELINES)
    body += [text(16, top, f"charts, one of {example['n']:,} held-out questions at temperature 1", "strong"),
             f'<image x="16" y="{top + 12}" width="190" height="{190 * example["height"] // example["width"]}" href="data:image/png;base64,{example["png"]}"/>']
    y = top + 26
    for label, words, kind in [("Question", example["question"], ""), ("SFT", example["sft"], "wrong"), ("RL", example["rl"], "right")]:
        body.append(text(222, y, label, "strong " + kind))
        for part in textwrap.wrap(words, 58):
            y += 18
            body.append(text(222, y, part, "small"))
        y += 24
    height = int(max(y, top + 12 + 190 * example["height"] // example["width"]) + 8)
    return framed("Gain of RL over each baseline with its interval, and an example of a chart", body, height)


def flow():
    """Draws the way of the data, with the weights that sampler and trainer share."""
    boxes = {"rows": (16, 60, 100), "distil": (138, 60, 100), "verify": (260, 60, 100), "SFT": (382, 60, 100)}
    body = [text(16, 28, "From rows to a measured model, in one program", "strong")]
    for name, (x, y, width) in boxes.items():
        body += [f'<rect class="box" x="{x}" y="{y}" width="{width}" height="48" rx="6"/>', text(x + width / 2, y + 29, name, "strong", "middle")]
    notes = {"distil": "by a teacher", "verify": "rules, judge"}
    body += [text(boxes[name][0] + 50, 124, note, "small", "middle") for name, note in notes.items()]
    body += [f'<path class="arrow" marker-end="url(#head)" d="M{x} 84 h18"/>' for x in (117, 239, 361)]
    body += ['<rect class="shared" x="138" y="160" width="344" height="118" rx="8"/>', text(310, 182, "RL: one set of weights", "strong", "middle"),
             '<rect class="box" x="154" y="196" width="120" height="48" rx="6"/>', text(214, 225, "sampler", "strong", "middle"),
             '<rect class="box" x="346" y="196" width="120" height="48" rx="6"/>', text(406, 225, "trainer", "strong", "middle"),
             '<path class="arrow" marker-end="url(#head)" d="M274 210 h68"/>', '<path class="arrow" marker-end="url(#head)" d="M346 232 h-68"/>',
             text(310, 266, "the same tokens, pixels and log-probs, bit for bit", "small", "middle"),
             '<path class="arrow" marker-end="url(#head)" d="M432 108 v48"/>']
    body += ['<rect class="box" x="510" y="160" width="114" height="48" rx="6"/>', text(567, 189, "evaluate", "strong", "middle"),
             '<rect class="box" x="510" y="230" width="114" height="48" rx="6"/>', text(567, 259, "report", "strong", "middle"),
             '<path class="arrow" marker-end="url(#head)" d="M482 184 h24"/>', '<path class="arrow" marker-end="url(#head)" d="M567 208 v18"/>']
    head = '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path class="arrow" d="M0 0 L8 4 L0 8"/></marker></defs>'
    return framed("Rows, distillation, verification, SFT, RL with one set of weights between sampler and trainer, evaluation, report", [head, *body], 296)


DRAWINGS = {"docs/results.svg": results, "docs/flow.svg": flow}
