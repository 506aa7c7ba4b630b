"""The answer verifier and the reward of omr (docs/user/python.md)."""
import json
from numbers import Real

from . import _native


def _text(value):
    """A text, or a number as text. A surrogate without its other half, which is not text, becomes a question mark."""
    if isinstance(value, bool) or not isinstance(value, (str, Real)):
        raise TypeError(f"found {type(value).__name__}, expected a text or a number")
    return str(value).encode(errors="replace").decode()


def _spoken(value):
    """A text, or that of the last of several messages, which is empty if it only calls a tool."""
    if not isinstance(value, list):
        return _text(value)
    content = (value[-1].get("content") if value else None) or ""
    if isinstance(content, list):
        return "".join(_text(part["text"]) for part in content if part.get("text") is not None)
    return _text(content)


def _size(size):
    size = (size["width"], size["height"]) if isinstance(size, dict) else size
    return None if size is None else tuple(map(float, size))


def _number(value, mode):
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        if mode == "strict":
            raise
        return None  # as in Vero


def _row(response, ground_truth, question, extra_info, mode, normalize_bbox_to_1000):
    """What the rules read from a row."""
    extra = {key: value for key, value in (extra_info or {}).items() if value is not None}
    further = extra.get("right_answers", [])  # Parquet files of omr contain the list as JSON text.
    further = json.loads(further) if isinstance(further, str) else further
    reward_type = _text(extra.get("reward_type", "")).strip().lower() or None
    extra = extra if reward_type else {}  # Without a type, the other keys may have any meaning.
    whole = extra["image_size"] if isinstance(extra.get("image_size"), dict) else None  # Vero reads no list here.
    weights = extra.get("grounding_component_weights")
    return {
        "response": _text(response), "labels": [_text(label) for label in [ground_truth, *further]],
        "question": None if question is None else _text(question), "reward_type": reward_type,
        "tolerance": _number(extra.get("tolerance"), mode), "iou_threshold": _number(extra.get("iou_threshold"), mode),
        "image_size": _size(next(iter(extra.get("image_sizes", [])), whole)),
        "processed_size": _size(next(iter(extra.get("processed_image_sizes", [])), None)),
        "normalize_bbox_to_1000": bool(extra.get("normalize_bbox_to_1000", normalize_bbox_to_1000)),
        "component_weights": weights and [float(weights[key]) for key in ("location", "recall", "penalty")],
    }


def verify(gold, answer, mode="strict"):
    """Whether an answer, alone or within a text, equals the right answer."""
    return verify_many([gold], [answer], mode, 1)[0]


def verify_many(golds, answers, mode="strict", threads=None):
    """The verdicts on many pairs."""
    pairs = [(_text(gold), _text(answer)) for gold, answer in zip(golds, answers, strict=True)]
    return _native.verify_many(pairs, mode, threads)


def extract(response, mode="strict"):
    """The answer found in a response, and the name of the rule that found it."""
    return _native.extract(_text(response), mode)


def score(response, ground_truth, question=None, extra_info=None, **settings):
    """The reward of a response and its parts, as `omr score` prints them. `settings` are those of `score_many`."""
    return score_many([response], [ground_truth], [question], [extra_info], 1, **settings)[0]


def score_many(responses, ground_truths, questions=None, extra_infos=None, threads=None, *, mode="strict",
               format="think_answer_boxed", format_weight=0.1, flexible_extract=False, normalize_bbox_to_1000=False):
    """The rewards of many responses."""
    if not 0 <= format_weight <= 1:
        raise ValueError(f"found the format_weight {format_weight}, expected 0 to 1")
    rows, nothing = [], [None] * len(responses)
    questions, extra_infos = (nothing if column is None else column for column in (questions, extra_infos))
    for columns in zip(responses, ground_truths, questions, extra_infos, strict=True):
        try:
            rows.append(_row(*columns, mode, normalize_bbox_to_1000))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"response {len(rows)}: {error!r}") from error
    scored = _native.score_many(rows, (mode, format, flexible_extract), threads)
    return [{"score": (1 - format_weight) * acc + format_weight * form, "acc_score": acc, "format_reward_score": form,
             "predict_str": predict, "why": why} for acc, form, predict, why in scored]


def compute_score(data_source, solution_str, ground_truth, extra_info=None, reward_router_address=None,
                  reward_model_tokenizer=None, **settings):
    """The reward function of verl. Its reward model, if there is one, is not asked."""
    return score(solution_str, ground_truth, (extra_info or {}).get("question"), extra_info, **settings)


def trl_reward(completions, ground_truth=None, solution=None, prompts=None, question=None, extra_info=None,
               threads=None, settings=None, **_):
    """A reward function of TRL. The labels are the column `ground_truth` or `solution`."""
    labels = solution if ground_truth is None else ground_truth
    if labels is None:
        raise TypeError("found neither of the columns ground_truth and solution, expected one of them")
    questions = question or (prompts and list(map(_spoken, prompts)))
    responses = list(map(_spoken, completions))
    return [one["score"] for one in score_many(responses, labels, questions, extra_info, threads, **(settings or {}))]
