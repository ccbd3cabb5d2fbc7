"""How well does a policy drive? Episodes from fixed seeds, their statistics, videos and files."""

from racer.evaluation.episodes import (
    FIRST_EVALUATION_SEED,
    EpisodeResult,
    EvaluationResult,
    evaluate_policy,
    evaluation_seeds,
)
from racer.evaluation.report import format_table, read_evaluation, write_evaluation

__all__ = [
    "FIRST_EVALUATION_SEED",
    "EpisodeResult",
    "EvaluationResult",
    "evaluate_policy",
    "evaluation_seeds",
    "format_table",
    "read_evaluation",
    "write_evaluation",
]
