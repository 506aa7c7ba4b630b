"""The answer verifier and the reward of omr."""

from collections.abc import Sequence
from typing import Any, Literal, Optional, TypedDict, Union

Mode = Literal["strict", "compat"]
Format = Literal["think_answer_boxed", "think_answer", "think_boxed"]
Text = Union[str, int, float]
"""A text, or a number as text."""
Spoken = Union[Text, list[dict[str, Any]]]
"""A text, or messages of which the last one counts."""

class Scored(TypedDict):
    score: float
    acc_score: float
    format_reward_score: float
    predict_str: str
    why: str

class Settings(TypedDict, total=False):
    mode: Mode
    format: Format
    format_weight: float
    flexible_extract: bool
    normalize_bbox_to_1000: bool

def verify(gold: Text, answer: Text, mode: Mode = "strict") -> bool: ...
def verify_many(
    golds: Sequence[Text], answers: Sequence[Text], mode: Mode = "strict", threads: Optional[int] = None
) -> list[bool]: ...
def extract(response: Text, mode: Mode = "strict") -> tuple[str, str]: ...
def score(
    response: Text,
    ground_truth: Text,
    question: Optional[Text] = None,
    extra_info: Optional[dict[str, Any]] = None,
    *,
    mode: Mode = "strict",
    format: Format = "think_answer_boxed",
    format_weight: float = 0.1,
    flexible_extract: bool = False,
    normalize_bbox_to_1000: bool = False,
) -> Scored: ...
def score_many(
    responses: Sequence[Text],
    ground_truths: Sequence[Text],
    questions: Optional[Sequence[Optional[Text]]] = None,
    extra_infos: Optional[Sequence[Optional[dict[str, Any]]]] = None,
    threads: Optional[int] = None,
    *,
    mode: Mode = "strict",
    format: Format = "think_answer_boxed",
    format_weight: float = 0.1,
    flexible_extract: bool = False,
    normalize_bbox_to_1000: bool = False,
) -> list[Scored]: ...
def compute_score(
    data_source: Any,
    solution_str: Text,
    ground_truth: Text,
    extra_info: Optional[dict[str, Any]] = None,
    reward_router_address: Any = None,
    reward_model_tokenizer: Any = None,
    *,
    mode: Mode = "strict",
    format: Format = "think_answer_boxed",
    format_weight: float = 0.1,
    flexible_extract: bool = False,
    normalize_bbox_to_1000: bool = False,
) -> Scored: ...
def trl_reward(
    completions: Sequence[Spoken],
    ground_truth: Optional[Sequence[Text]] = None,
    solution: Optional[Sequence[Text]] = None,
    prompts: Optional[Sequence[Spoken]] = None,
    question: Optional[Sequence[Optional[Text]]] = None,
    extra_info: Optional[Sequence[Optional[dict[str, Any]]]] = None,
    threads: Optional[int] = None,
    settings: Optional[Settings] = None,
    **columns: Any,
) -> list[float]: ...
