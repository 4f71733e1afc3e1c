"""What a LatencyModel learns from: metrics, files of measurements, profiling Jobs."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from tailwise.api.document import Document
from tailwise.api.metadata import LabelValue
from tailwise.api.schema import list_atomic, list_map, list_set, rule, rules
from tailwise.api.serving_metrics import LatencyQueries, ServingPreset

ALL_PRESETS = tuple(preset for preset in ServingPreset if preset is not ServingPreset.CUSTOM)


class LabelSelector(Document):
    """Selects objects by their labels."""

    match_labels: dict[str, LabelValue] = Field(
        min_length=1, max_length=32, description="Labels that an object must carry, all of them."
    )


class NamedQueries(LatencyQueries):
    """Queries of one's own under a name."""

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="Name by which the rows are told apart.",
    )


class DatasetFile(Document):
    """A file of measurements made elsewhere."""

    url: str = Field(
        min_length=1,
        max_length=2048,
        description="URL of a Parquet or JSON Lines file in the documented schema of the dataset.",
        json_schema_extra=rules(
            rule(
                "self.matches('^(https?|s3|gs|az|hf|oci|pvc|file)://.+')",
                "a dataset's url needs a scheme that Tailwise reads: https://, http://, s3://, gs://, az://, "
                "hf://, oci://, pvc:// or file://",
            )
        ),
    )


class Dataset(Document):
    """Which measurements are used, and how many are kept."""

    presets: tuple[ServingPreset, ...] = Field(
        ALL_PRESETS,
        max_length=8,
        description="Model servers whose metrics are read: Triton, KServe, TorchServe, VLLM, MLServer, "
        "OpenInference. Default: all of them. Queries of one's own stand in queries.",
        json_schema_extra=list_set()
        | rules(
            rule(
                "!('Custom' in self)",
                "Custom is no preset of a dataset: list queries of your own in spec.dataset.queries",
            )
        ),
    )
    queries: tuple[NamedQueries, ...] = Field(
        default=(),
        max_length=16,
        description="PromQL for servers that no preset knows.",
        json_schema_extra=list_map("name"),
    )
    files: tuple[DatasetFile, ...] = Field(
        default=(),
        max_length=16,
        description="Files of measurements made elsewhere.",
        json_schema_extra=list_map("url"),
    )
    workload_selector: LabelSelector | None = Field(
        None, description="InferenceWorkloads that count, by their labels. Default: all."
    )
    window_seconds: int = Field(
        300, ge=30, le=86_400, description="Window of time that makes one row of the dataset."
    )
    lookback_hours: int = Field(168, ge=1, le=8_784, description="How far back metrics are read.")
    retention_days: int = Field(90, ge=1, le=3_660, description="How long rows are kept.")
    max_rows: int = Field(200_000, ge=100, le=5_000_000, description="Rows kept at most.")
    max_rows_per_cell: int = Field(
        500,
        ge=10,
        le=1_000_000,
        description="Rows kept at most for one profile, class of nodes and class of load, so that none "
        "outweighs the others.",
    )


class LoadScenario(StrEnum):
    """A scenario of MLPerf LoadGen."""

    SINGLE_STREAM = "SingleStream"
    MULTI_STREAM = "MultiStream"
    SERVER = "Server"


class TimeWindow(Document):
    """When profiling Jobs may start."""

    cron: str = Field(
        min_length=1,
        max_length=128,
        description="Start of the window, as five fields of cron.",
        json_schema_extra=rules(
            rule(
                "self.matches('^\\\\S+( +\\\\S+){4}$')",
                "cron needs five fields: minute, hour, day of month, month, day of week, as in '0 2 * * *'",
            )
        ),
    )
    time_zone: str = Field("Etc/UTC", min_length=1, max_length=64, description="Its time zone, by IANA name.")
    duration_minutes: int = Field(ge=1, le=10_080, description="Length of the window.")


class Profiling(Document):
    """Jobs that drive workloads' own servers with MLPerf LoadGen, for data before there is traffic."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!('Server' in self.scenarios) || size(self.requestsPerSecond) > 0",
                "scenario Server needs rates: list some in spec.profiling.requestsPerSecond",
            )
        )
    )

    scenarios: tuple[LoadScenario, ...] = Field(
        (LoadScenario.SINGLE_STREAM,),
        min_length=1,
        max_length=3,
        description="LoadGen's scenarios: SingleStream, MultiStream, Server.",
        json_schema_extra=list_set(),
    )
    queries: int = Field(1_024, ge=64, le=1_000_000, description="Queries of one run.")
    concurrency: tuple[int, ...] = Field(
        (1,),
        min_length=1,
        max_length=16,
        description="Queries in flight, one run for each.",
        json_schema_extra=list_set()
        | rules(rule("self.all(c, c >= 1 && c <= 65536)", "each of concurrency must be 1 to 65536")),
    )
    requests_per_second: tuple[int, ...] = Field(
        default=(),
        max_length=16,
        description="Rates of scenario Server, one run for each.",
        json_schema_extra=list_set()
        | rules(rule("self.all(r, r >= 1)", "each of requestsPerSecond must be at least 1")),
    )
    cpu_limits_millicores: tuple[int, ...] = Field(
        default=(),
        max_length=16,
        description="CPU limits of the server, one run for each. Default: the workload's own.",
        json_schema_extra=list_set()
        | rules(rule("self.all(m, m >= 10)", "each of cpuLimitsMillicores must be at least 10")),
    )
    workload_selector: LabelSelector | None = Field(
        None, description="InferenceWorkloads that are profiled. Default: all."
    )
    node_selector: dict[str, LabelValue] = Field(
        default_factory=dict, max_length=32, description="Nodes that are profiled, by label. Default: all."
    )
    max_parallel: int = Field(1, ge=1, le=100, description="Jobs at a time, each on a node of its own.")
    deadline_seconds: int = Field(900, ge=30, le=86_400, description="Time that one Job may take.")
    budget_minutes_per_day: int = Field(60, ge=1, le=1_440, description="Time of all Jobs in one day.")
    windows: tuple[TimeWindow, ...] = Field(
        default=(),
        max_length=16,
        description="When Jobs may start. Default: at any time.",
        json_schema_extra=list_atomic(),
    )
