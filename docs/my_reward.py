"""One's own reward for omr: reward.command=[python3, docs/my_reward.py]. A line of JSON in, a line of JSON out."""
import json
import sys

for line in sys.stdin:
    row = json.loads(line)  # id, response, ground_truth, question
    right = row["ground_truth"] in row["response"]
    brief = len(row["response"]) < 400
    print(json.dumps({"id": row["id"], "score": right + 0.1 * brief, "acc_score": float(right)}), flush=True)
