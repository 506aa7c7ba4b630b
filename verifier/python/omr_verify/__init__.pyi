"""The answer verifier and the reward of omr."""

from collections.abc import Sequence
from typing import Any, Literal, Optional, TypedDict, Union

_Mode = Literal["strict", "compat"]
_Format = Literal["think_answer_boxed", "think_answer", "think_boxed"]
_Text = Union[str, int, float]
"""A text, or a number as text."""
_Spoken = Union[_Text, list[dict[str, Any]]]
"""A text, or messages of which the last one counts."""

class _Scored(TypedDict):
    score: float
    acc_score: float
    format_reward_score: float
    predict_str: str
    why: str

class _Settings(TypedDict, total=False):
    mode: _Mode
    format: _Format
    format_weight: float
    flexible_extract: bool
    normalize_bbox_to_1000: bool

def verify(gold: _Text, answer: _Text, mode: _Mode = "strict") -> bool: ...
def verify_many(
    golds: Sequence[_Text], answers: Sequence[_Text], mode: _Mode = "strict", threads: Optional[int] = None
) -> list[bool]: ...
def extract(response: _Text, mode: _Mode = "strict") -> tuple[str, str]: ...
def score(
    response: _Text,
    ground_truth: _Text,
    question: Optional[_Text] = None,
    extra_info: Optional[dict[str, Any]] = None,
    *,
    mode: _Mode = "strict",
    format: _Format = "think_answer_boxed",
    format_weight: float = 0.1,
    flexible_extract: bool = False,
    normalize_bbox_to_1000: bool = False,
) -> _Scored: ...
def score_many(
    responses: Sequence[_Text],
    ground_truths: Sequence[_Text],
    questions: Optional[Sequence[Optional[_Text]]] = None,
    extra_infos: Optional[Sequence[Optional[dict[str, Any]]]] = None,
    threads: Optional[int] = None,
    *,
    mode: _Mode = "strict",
    format: _Format = "think_answer_boxed",
    format_weight: float = 0.1,
    flexible_extract: bool = False,
    normalize_bbox_to_1000: bool = False,
) -> list[_Scored]: ...
def compute_score(
    data_source: Any,
    solution_str: _Text,
    ground_truth: _Text,
    extra_info: Optional[dict[str, Any]] = None,
    reward_router_address: Any = None,
    reward_model_tokenizer: Any = None,
    *,
    mode: _Mode = "strict",
    format: _Format = "think_answer_boxed",
    format_weight: float = 0.1,
    flexible_extract: bool = False,
    normalize_bbox_to_1000: bool = False,
) -> _Scored: ...
def trl_reward(
    completions: Sequence[_Spoken],
    ground_truth: Optional[Sequence[_Text]] = None,
    solution: Optional[Sequence[_Text]] = None,
    prompts: Optional[Sequence[_Spoken]] = None,
    question: Optional[Sequence[Optional[_Text]]] = None,
    extra_info: Optional[Sequence[Optional[dict[str, Any]]]] = None,
    threads: Optional[int] = None,
    settings: Optional[_Settings] = None,
    **columns: Any,
) -> list[float]: ...
