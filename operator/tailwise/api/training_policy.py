"""How a LatencyModel is trained: algorithms, search, calibration, the Job that does it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tailwise.api.document import Document
from tailwise.api.metadata import NAME_PATTERN, LabelValue
from tailwise.api.schema import list_map, list_set, rule, rules


class FeatureSet(StrEnum):
    """Which features predictions are made from."""

    PAPER = "Paper"
    EXTENDED = "Extended"


class Smoothing(Document):
    """Smoothing of the latency series before training: equation (15)."""

    window_rows: int = Field(
        1, ge=1, le=1_000, description="Rows that the logarithmic window spans; 1 does not smooth."
    )


class TrainableAlgorithm(StrEnum):
    """An algorithm that can be trained; the physics prior always takes part as the one to beat."""

    RANDOM_FOREST = "RandomForest"
    LIGHTGBM = "LightGBM"
    XGBOOST = "XGBoost"
    MLP = "MLP"


GridValue = Annotated[str, Field(min_length=1, max_length=64)]


class GridParameter(Document):
    """The values of one hyperparameter that the search tries."""

    parameter: str = Field(
        min_length=1,
        max_length=64,
        pattern=r"^[a-z][a-z0-9_]*$",
        description="Name of the hyperparameter, as the algorithm's library spells it.",
    )
    values: tuple[GridValue, ...] = Field(
        min_length=1,
        max_length=16,
        description="Values to try, each as text: '0.05', '200', 'sqrt'.",
        json_schema_extra=list_set(),
    )


class AlgorithmSearch(Document):
    """An algorithm and the grid it is searched over."""

    name: TrainableAlgorithm = Field(description="RandomForest, LightGBM, XGBoost or MLP.")
    grid: tuple[GridParameter, ...] = Field(
        default=(),
        max_length=16,
        description="Hyperparameters to search over. Default: the built-in grid of the algorithm.",
        json_schema_extra=list_map("parameter"),
    )


ALL_ALGORITHMS = tuple(AlgorithmSearch(name=name) for name in TrainableAlgorithm)


class SearchStrategy(StrEnum):
    """How the grid is walked."""

    GRID = "Grid"
    SUCCESSIVE_HALVING = "SuccessiveHalving"


class SelectionMetric(StrEnum):
    """By which error the best is chosen."""

    RMSE = "RMSE"
    RMSLE = "RMSLE"
    MAPE = "MAPE"


class Search(Document):
    """How the best algorithm and its hyperparameters are found."""

    strategy: SearchStrategy = Field(
        SearchStrategy.GRID,
        description="Grid: every combination. SuccessiveHalving: many on little data, few on all of it.",
    )
    metric: SelectionMetric = Field(
        SelectionMetric.RMSE, description="Error that decides: RMSE, RMSLE or MAPE."
    )
    folds: int = Field(5, ge=2, le=20, description="Folds of cross-validation, each a block of time.")
    max_candidates: int = Field(256, ge=1, le=10_000, description="Combinations tried at most.")
    holdout_percent: int = Field(
        20, ge=5, le=50, description="Newest share of the rows that training never sees."
    )
    seed: int = Field(0, ge=0, le=2_147_483_647, description="Seed: the same data gives the same version.")


class Calibration(Document):
    """How the bound is set, by split-conformal calibration."""

    coverage_percent: int = Field(
        90, ge=50, le=99, description="Share of latencies that the bound must cover."
    )
    min_samples_per_node_class: int = Field(
        100,
        ge=20,
        le=100_000,
        description="Rows that a class of nodes needs for a bound of its own; classes below share one.",
    )
    out_of_distribution_percent: int = Field(
        1,
        ge=0,
        le=20,
        description="Share of known rows that may count as out of distribution; 0 never says so.",
    )


class TrainingJob(Document):
    """The Job that trains."""

    cpu_limit_millicores: int = Field(2_000, ge=100, le=1_000_000, description="CPU that it may use.")
    memory_limit_mebibytes: int = Field(2_048, ge=256, le=4_194_304, description="Memory that it may use.")
    backoff_limit: int = Field(1, ge=0, le=10, description="How often it is tried again.")
    deadline_seconds: int = Field(3_600, ge=60, le=604_800, description="Time that it may take.")
    ttl_seconds: int = Field(86_400, ge=0, le=2_592_000, description="How long it is kept once it ended.")
    node_selector: dict[str, LabelValue] = Field(
        default_factory=dict, max_length=32, description="Nodes that it may run on, by label."
    )
    service_account_name: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        pattern=NAME_PATTERN,
        description="Service account of the operator's namespace, for stores that need credentials.",
    )


class ConcurrencyPolicy(StrEnum):
    """What happens when a run is due while one runs."""

    FORBID = "Forbid"
    REPLACE = "Replace"


class Schedule(Document):
    """When training is due."""

    cron: str = Field(
        min_length=1,
        max_length=128,
        description="Five fields of cron, or @hourly, @daily, @weekly, @monthly.",
        json_schema_extra=rules(
            rule(
                "self.matches('^(@(hourly|daily|weekly|monthly)|\\\\S+( +\\\\S+){4})$')",
                "spec.schedule.cron needs five fields (minute, hour, day of month, month, day of week), as "
                "in '0 3 * * *', or @hourly, @daily, @weekly, @monthly",
            )
        ),
    )
    time_zone: str = Field("Etc/UTC", min_length=1, max_length=64, description="Its time zone, by IANA name.")
    concurrency_policy: ConcurrencyPolicy = Field(
        ConcurrencyPolicy.FORBID,
        description="Forbid: a run that is due while one runs is left out. Replace: it ends the other.",
    )
    starting_deadline_seconds: int = Field(
        3_600, ge=10, le=604_800, description="How late a missed run may still start."
    )
    suspend: bool = Field(False, description="Whether the schedule rests.")


class Drift(Document):
    """What makes training due before its time."""

    min_coverage_percent: int = Field(
        85, ge=1, le=99, description="Live coverage below which the version drifts."
    )
    max_error_increase_percent: int = Field(
        50, ge=1, le=1_000, description="Growth of the live error over the held-out one that is drift."
    )
    window_samples: int = Field(200, ge=30, le=100_000, description="Placements that are judged together.")
    confidence_percent: int = Field(
        99, ge=80, le=99, description="Confidence of the binomial test on exceedances."
    )
    new_samples: int | None = Field(
        None, ge=100, le=5_000_000, description="New rows that make training due. Default: none do."
    )
    cooldown_seconds: int = Field(
        3_600, ge=60, le=2_592_000, description="Least time between two runs for drift."
    )
