"""Ask the API server, as this pod's service account, who is asking; print the answer as YAML."""

import json
import os
import ssl
import urllib.request
from pathlib import Path

import yaml

account = Path("/var/run/secrets/kubernetes.io/serviceaccount")
review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
address = f"{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
request = urllib.request.Request(
    f"https://{address}/apis/authentication.k8s.io/v1/selfsubjectreviews",
    data=json.dumps(review).encode(),
    headers={
        "Authorization": f"Bearer {(account / 'token').read_text()}",
        "Content-Type": "application/json",
    },
)
trusted = ssl.create_default_context(cafile=str(account / "ca.crt"))
with urllib.request.urlopen(request, context=trusted) as answer:  # noqa: S310
    user = json.load(answer)["status"]["userInfo"]
print(yaml.safe_dump({"address": address, "username": user["username"]}), flush=True)
