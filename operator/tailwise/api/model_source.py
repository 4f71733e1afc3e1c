"""Where a model is and how its graph is to be read."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tailwise.api.document import Document
from tailwise.api.metadata import NAME_PATTERN
from tailwise.api.profile_override import ProfileOverride
from tailwise.api.schema import list_atomic, list_map, rule, rules


class ModelFormat(StrEnum):
    """Format of a model's file."""

    ONNX = "ONNX"


class InputShape(Document):
    """The full shape of one input whose axes are dynamic."""

    name: str = Field(min_length=1, max_length=253, description="Name of the input in the graph.")
    dimensions: tuple[int, ...] = Field(
        min_length=1,
        max_length=8,
        description="Size of each axis, the batch first, as one query sends it; none may be 0.",
        json_schema_extra=list_atomic()
        | rules(
            rule(
                "self.all(size, size >= 1)",
                "each of dimensions must be at least 1: give the size that one query really has",
            )
        ),
    )


class SecretReference(Document):
    """Names a Secret of the workload's namespace."""

    name: str = Field(min_length=1, max_length=253, pattern=NAME_PATTERN, description="Its name.")


class ModelSource(Document):
    """Where the model is and how its graph is to be read."""

    url: str = Field(
        min_length=1,
        max_length=2048,
        description="Where the model's file is: https, http, s3, gs, az, hf, oci, pvc, or file (a path "
        "inside the operator's own file system, for development). Only the graph is read, never the weights. "
        "hf://OWNER/NAME[@REVISION]/PATH; oci://HOST/NAME:TAG[?path=FILE]; pvc://CLAIM/PATH. s3, gs, az and "
        "pvc are read by a Job of this namespace, as is all that names a service account or a Secret.",
        json_schema_extra=rules(
            rule(
                "self.matches('^(https?|s3|gs|az|hf|oci|pvc|file)://.+')",
                "spec.model.url needs a scheme that Tailwise reads: https://, http://, s3://, gs://, az://, "
                "hf://, oci://, pvc://, or file:///path for a file of the operator's own",
            ),
            rule(
                "!self.matches('^[a-z0-9]+://[^/]*:[^/]*@')",
                "spec.model.url must not carry a password: everybody who may read the object would see it. "
                "Name a service account with access in spec.model.serviceAccountName",
            ),
        ),
    )
    sha256: str | None = Field(
        None,
        max_length=64,
        description="SHA-256 of the file in hexadecimal. A file with another digest is refused.",
        json_schema_extra=rules(
            rule(
                "self.matches('^[0-9a-f]{64}$')",
                "spec.model.sha256 must be 64 hexadecimal digits in lower case, as sha256sum prints them",
            )
        ),
    )
    format: ModelFormat = Field(ModelFormat.ONNX, description="Format of the file. ONNX is read.")
    input_shapes: tuple[InputShape, ...] = Field(
        default=(),
        max_length=128,
        description="Shapes of the inputs that have dynamic axes. The batch follows from load.batchSize.",
        json_schema_extra=list_map("name"),
    )
    service_account_name: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        pattern=NAME_PATTERN,
        description="Service account of this namespace that may read the model, by the identity that its "
        "cloud gives it. A Job under it reads the graph; the operator itself reads no credentials.",
    )
    secret_ref: SecretReference | None = Field(
        None,
        description="Secret of this namespace with the credentials of the model's store. A Job mounts it and "
        "reads the graph. Keys: the variables of the store's own tools (AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AZURE_STORAGE_ACCOUNT_KEY, HF_TOKEN, ...), "
        "gcloud-application-credentials.json, .dockerconfigjson for registries, https-host and headers "
        "for a web server. KServe's storage Secrets are understood.",
    )
    profile: ProfileOverride | None = Field(
        None, description="Figures to use instead of those counted from the graph."
    )
