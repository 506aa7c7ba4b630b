"""One's own reward for omr: reward.command='[python3, docs/my_reward.py]', or, with a function that verl is given,
'[python3, docs/my_reward.py, FILE.py, compute_score]'. A line of JSON in, a line of JSON out."""
import json
import runpy
import sys


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    """As verl calls it; gives a number, or a dict with score and what else is to be kept."""
    right = ground_truth in solution_str
    return {"score": right + 0.1 * (len(solution_str) < 400), "acc_score": float(right)}


if __name__ == "__main__":
    if sys.argv[1:]:
        compute_score = runpy.run_path(sys.argv[1])[(sys.argv[2:] or ["compute_score"])[0]]
    answers, sys.stdout = sys.stdout, sys.stderr  # What the function prints is no answer.
    for line in sys.stdin:
        row = json.loads(line)
        extra_info = row.get("extra_info") or {"question": row.get("question")}
        score = compute_score(data_source=row.get("data_source"), solution_str=row["response"],
                              ground_truth=row["ground_truth"], extra_info=extra_info)
        score = score if isinstance(score, dict) else {"score": score}
        print(json.dumps({**score, "id": row["id"]}, default=float), file=answers, flush=True)
