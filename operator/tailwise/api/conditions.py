"""The one list of condition types, of their reasons and of the events' reasons, and metav1.Condition."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tailwise.api.document import StatusDocument, Timestamp


class ConditionStatus(StrEnum):
    """Status of a condition, as metav1.ConditionStatus."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """What a condition speaks of. Positive is good, but for Drifting."""

    # Both kinds. InferenceWorkload: its pods are placed and serving. LatencyModel: it answers predictions.
    READY = "Ready"
    # Both kinds. Every field in use has its behaviour in this version.
    SPEC_SUPPORTED = "SpecSupported"

    # InferenceWorkload: the model's graph was read and counted.
    MODEL_PROFILED = "ModelProfiled"
    # InferenceWorkload: no pod waits for a decision, and none was let go without one.
    PLACED = "Placed"
    # InferenceWorkload: at least one node's bound meets the SLO, or all placed pods' bounds do.
    SLO_ATTAINABLE = "SLOAttainable"
    # InferenceWorkload: the latency was read from Prometheus; False also when it misses the SLO.
    OBSERVED = "Observed"

    # LatencyModel: enough rows, of enough kinds, to train on.
    DATASET_SUFFICIENT = "DatasetSufficient"
    # LatencyModel: the last training made a version.
    TRAINED = "Trained"
    # LatencyModel: the newest version serves (or was weighed and found lighter).
    PROMOTED = "Promoted"
    # LatencyModel: the serving version no longer fits what is observed. True is bad.
    DRIFTING = "Drifting"


INFERENCE_WORKLOAD_CONDITIONS = (
    ConditionType.READY,
    ConditionType.SPEC_SUPPORTED,
    ConditionType.MODEL_PROFILED,
    ConditionType.PLACED,
    ConditionType.SLO_ATTAINABLE,
    ConditionType.OBSERVED,
)
LATENCY_MODEL_CONDITIONS = (
    ConditionType.READY,
    ConditionType.SPEC_SUPPORTED,
    ConditionType.DATASET_SUFFICIENT,
    ConditionType.TRAINED,
    ConditionType.PROMOTED,
    ConditionType.DRIFTING,
)


class Reason(StrEnum):
    """Why a condition has its status; the message says what to do about it."""

    # --- SpecSupported
    ALL_FIELDS_SUPPORTED = "AllFieldsSupported"
    # A field in use has no behaviour in this version; the message lists them.
    NOT_IMPLEMENTED = "NotImplemented"
    # The stored object cannot be read by this version (for instance, it was written for a newer one).
    SPEC_INVALID = "SpecInvalid"

    # --- Ready (InferenceWorkload)
    # All replicas are placed and ready.
    SERVING = "Serving"
    # Some replicas are not ready yet; nothing is wrong so far.
    PROGRESSING = "Progressing"
    # Neither a template nor a pod with the label.
    NO_PODS = "NoPods"
    # The API server refused the Deployment made from spec.template; its words are in the message.
    TEMPLATE_REFUSED = "TemplateRefused"
    # A Deployment of that name exists and belongs to somebody else.
    DEPLOYMENT_NOT_OURS = "DeploymentNotOurs"
    # Scaled to zero on purpose.
    SCALED_TO_ZERO = "ScaledToZero"

    # --- ModelProfiled
    # Every operator was counted.
    PROFILE_COMPLETE = "ProfileComplete"
    # Some operators could not be counted; status.profile.unresolved names them. Status is still True.
    PROFILE_PARTIAL = "ProfilePartial"
    # spec.model.profile gives it all; the URL is not read.
    PROFILE_GIVEN = "ProfileGiven"
    # Being read now.
    PROFILING = "Profiling"
    # No connection, no such host, TLS refused.
    MODEL_UNREACHABLE = "ModelUnreachable"
    # 404, or no such file.
    MODEL_NOT_FOUND = "ModelNotFound"
    # 401 or 403: credentials are needed.
    MODEL_FORBIDDEN = "ModelForbidden"
    # Truncated, not ONNX, or a graph that contradicts itself.
    MODEL_INVALID = "ModelInvalid"
    # Past the limits on bytes, memory or time of the reader.
    MODEL_TOO_LARGE = "ModelTooLarge"
    # The reader ran out of time.
    MODEL_READ_TIMED_OUT = "ModelReadTimedOut"
    # The URL, or where it redirects to, lies in a network that model URLs may not point to.
    ADDRESS_REFUSED = "AddressRefused"
    # Dynamic axes without spec.model.inputShapes; the message lists them.
    INPUT_SHAPES_MISSING = "InputShapesMissing"
    # spec.model.inputShapes does not fit the graph's inputs.
    INPUT_SHAPES_MISMATCH = "InputShapesMismatch"
    # spec.model.sha256 is not the file's.
    DIGEST_MISMATCH = "DigestMismatch"
    # The Job that reads it under the workload's identity failed; the message has the pod's words.
    INSPECTION_JOB_FAILED = "InspectionJobFailed"
    # Any other failure of the reader, such as a crash of its process.
    MODEL_UNREADABLE = "ModelUnreadable"

    # --- Placed
    # Each pod stands where it was decided.
    ALL_PODS_PLACED = "AllPodsPlaced"
    # Pods wait for their decision.
    PODS_PENDING = "PodsPending"
    # No node passes the filters; the message counts why not.
    NO_FEASIBLE_NODE = "NoFeasibleNode"
    # Pods were left to the default scheduler after spec.placement.timeoutSeconds.
    FELL_BACK = "FellBack"
    # Pods are held at the gate (fallback: Hold).
    HELD = "Held"
    # kube-scheduler called a pod unschedulable after its node was decided.
    UNSCHEDULABLE_AFTER_PLACEMENT = "UnschedulableAfterPlacement"
    # A pod with this workload's label belongs to another workload's Deployment.
    PODS_CLAIMED_TWICE = "PodsClaimedTwice"
    # No node has a hardware ConfigMap: no agent runs.
    NO_NODE_HARDWARE = "NoNodeHardware"
    # Nothing can be predicted yet, for want of a profile.
    WAITING_FOR_PROFILE = "WaitingForProfile"

    # --- SLOAttainable
    # The bound meets the SLO.
    WITHIN_SLO = "WithinSLO"
    # No node's bound meets it; the message says by how much the best one misses.
    NO_NODE_MEETS_SLO = "NoNodeMeetsSLO"
    # Nothing has been predicted yet.
    NOT_PREDICTED = "NotPredicted"

    # --- Observed
    # The latency was read and meets the SLO.
    SLO_MET = "SLOMet"
    # The latency was read and misses the SLO.
    SLO_MISSED = "SLOMissed"
    # spec.metrics is not given.
    METRICS_NOT_CONFIGURED = "MetricsNotConfigured"
    # The query gave no samples: no traffic, or the pods are not scraped.
    NO_SAMPLES = "NoSamples"
    # Prometheus answered that the query is wrong; its words are in the message.
    QUERY_REFUSED = "QueryRefused"
    # Prometheus cannot be reached. Also of DatasetSufficient.
    PROMETHEUS_UNAVAILABLE = "PrometheusUnavailable"

    # --- Ready (InferenceWorkload and LatencyModel)
    # spec.latencyModelRef names no LatencyModel.
    LATENCY_MODEL_NOT_FOUND = "LatencyModelNotFound"

    # --- Ready (LatencyModel)
    # Version 0, the physics prior, answers.
    SERVING_PRIOR = "ServingPrior"
    # A trained version answers.
    SERVING_VERSION = "ServingVersion"
    # The version that should serve cannot be loaded; the one before goes on.
    ARTIFACT_INVALID = "ArtifactInvalid"

    # --- DatasetSufficient
    DATASET_READY = "DatasetReady"
    # Fewer rows than spec.promotion.minSamples.
    TOO_FEW_SAMPLES = "TooFewSamples"
    # One workload, one node class or one latency only: nothing to tell apart.
    TOO_LITTLE_VARIETY = "TooLittleVariety"

    # A file of spec.dataset.files cannot be fetched, or is no dataset.
    DATASET_UNREADABLE = "DatasetUnreadable"

    # --- Trained
    TRAINING_SUCCEEDED = "TrainingSucceeded"
    TRAINING_RUNNING = "TrainingRunning"
    TRAINING_FAILED = "TrainingFailed"
    # No run was asked for yet.
    NEVER_TRAINED = "NeverTrained"

    # --- Promoted
    PROMOTED_AUTOMATICALLY = "PromotedAutomatically"
    # spec.promotion.pinnedVersion decides.
    VERSION_PINNED = "VersionPinned"
    # The challenger gains less than spec.promotion.minGainPercent.
    GAIN_TOO_SMALL = "GainTooSmall"
    # The challenger covers less than spec.promotion.minCoveragePercent.
    COVERAGE_TOO_LOW = "CoverageTooLow"
    # spec.promotion.mode is Manual and the challenger waits.
    AWAITING_APPROVAL = "AwaitingApproval"
    ROLLED_BACK = "RolledBack"
    # There is only version 0.
    NO_CHALLENGER = "NoChallenger"

    # --- Drifting
    STABLE = "Stable"
    COVERAGE_FELL = "CoverageFell"
    ERROR_ROSE = "ErrorRose"
    # Too few placements were observed to judge.
    NOT_ENOUGH_OBSERVATIONS = "NotEnoughObservations"


class EventReason(StrEnum):
    """Reasons of events; an event is written when something changes, never once a retry."""

    # A pod's node was decided and its gate opened.
    PLACED = "Placed"
    # No node passes the filters or meets the SLO.
    NO_FEASIBLE_NODE = "NoFeasibleNode"
    # The pod was left to the default scheduler.
    FELL_BACK = "FellBack"
    # The pod waits at its gate (fallback: Hold).
    HELD = "Held"
    # The pod's label names no InferenceWorkload of its namespace; it is let go.
    UNKNOWN_WORKLOAD = "UnknownWorkload"
    # The pod belongs to one workload's Deployment and carries another's label.
    CLAIMED_TWICE = "ClaimedTwice"
    # kube-scheduler would not have the pod on the node decided.
    UNSCHEDULABLE_AFTER_PLACEMENT = "UnschedulableAfterPlacement"
    # A pod that ran was evicted for a better node (spec.placement.relocation).
    MOVED = "Moved"
    MODEL_PROFILED = "ModelProfiled"
    MODEL_UNREADABLE = "ModelUnreadable"
    TEMPLATE_REFUSED = "TemplateRefused"
    SPEC_NOT_SUPPORTED = "SpecNotSupported"
    SPEC_INVALID = "SpecInvalid"
    SLO_MISSED = "SLOMissed"
    SLO_MET = "SLOMet"
    PROMETHEUS_UNAVAILABLE = "PrometheusUnavailable"
    LATENCY_MODEL_NOT_FOUND = "LatencyModelNotFound"
    # Another version answers from now on.
    VERSION_SERVING = "VersionServing"
    # A training run began, and how it ended.
    TRAINING_STARTED = "TrainingStarted"
    TRAINING_SUCCEEDED = "TrainingSucceeded"
    TRAINING_FAILED = "TrainingFailed"
    # Something asked for a run, and there can be none.
    TRAINING_SKIPPED = "TrainingSkipped"
    # A trained version does not serve, or waits for approval; the condition Promoted says why.
    VERSION_REJECTED = "VersionRejected"
    VERSION_WAITS = "VersionWaits"
    # A version was taken back, or may no longer be kept.
    ROLLED_BACK = "RolledBack"
    VERSION_DELETED = "VersionDeleted"


class Condition(StatusDocument):
    """One aspect of an object's state, exactly as metav1.Condition."""

    type: ConditionType = Field(description="Aspect of the state that the condition speaks of.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: str = Field(
        min_length=1,
        max_length=1024,
        pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        description="Why the status is what it is, as one word for programs.",
    )
    message: str = Field("", max_length=32768, description="The same for people, with the way out.")
    last_transition_time: Timestamp = Field(description="When the status last changed.")
    observed_generation: int | None = Field(
        None, ge=0, description="metadata.generation that the condition was set for."
    )
