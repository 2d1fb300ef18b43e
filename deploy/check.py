#!/usr/bin/env python3
"""Checks what cannot be run here: the Kubernetes objects against the schemas of Kubernetes, unknown keys refused; compose.yaml
against the schema of the Compose specification; that Grafana's files hang together; and that every TIDEMARK_… variable in
compose.yaml, kubernetes.yaml and the Dockerfile is one that `tidemark run` has.

check.py TIDEMARK, in a Python that has kubernetes-validate; COMPOSE_SCHEMA names the schema file. Prints one line a problem.
"""
import json
import os
import pathlib
import re
import subprocess
import sys

import jsonschema
import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).resolve().parent
KUBERNETES = "1.36"


def kubernetes():
    for document in yaml.safe_load_all((HERE / "kubernetes.yaml").read_text()):
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"kubernetes.yaml: {document['kind']} {document['metadata']['name']}: {'.'.join(map(str, error.path))}: {error.message}"


def compose():
    schema = json.loads(pathlib.Path(os.environ["COMPOSE_SCHEMA"]).read_text())
    document = yaml.safe_load((HERE / "compose.yaml").read_text())
    for error in jsonschema.Draft7Validator(schema).iter_errors(document):
        yield f"compose.yaml: {'.'.join(map(str, error.path))}: {error.message}"
    for name, service in document["services"].items():
        if "healthcheck" not in service:
            yield f"compose.yaml: {name} has no health check"


def variables(tidemark):
    known = set(re.findall(r"TIDEMARK_[A-Z_]+", subprocess.run([tidemark, "run", "--help"], capture_output=True, text=True, check=True).stdout))
    for file in ("compose.yaml", "kubernetes.yaml", "Dockerfile"):
        for name in sorted(set(re.findall(r"TIDEMARK_[A-Z_]+", (HERE / file).read_text())) - known):
            yield f"{file}: `tidemark run` has no {name}"


def grafana():
    """What Grafana would only say in its log: a file it cannot read, a panel without its data source, a number twice."""
    folder = HERE / "grafana"
    sources = yaml.safe_load((folder / "provisioning/datasources/tidemark.yaml").read_text())["datasources"]
    known = {source["uid"]: source["type"] for source in sources}
    for provider in yaml.safe_load((folder / "provisioning/dashboards/tidemark.yaml").read_text())["providers"]:
        if provider["type"] != "file" or not provider["options"]["path"].endswith("/dashboards"):
            yield f"grafana: provider {provider['name']} does not read the folder dashboards"
    for file in sorted((folder / "dashboards").glob("*.json")):
        board = json.loads(file.read_text())
        ids = [panel["id"] for panel in board["panels"]]
        if len(set(ids)) < len(ids) or not all(board.get(key) for key in ("uid", "title", "schemaVersion")):
            yield f"{file.name}: a panel's id twice, or no uid, title or schemaVersion"
        users = [*board["templating"]["list"], *(target for panel in board["panels"] for target in [panel, *panel["targets"]])]
        for user in users:
            if known.get(user["datasource"]["uid"]) != user["datasource"]["type"]:
                yield f"{file.name}: no data source {user['datasource']}"
        names = {variable["name"] for variable in board["templating"]["list"]}
        for expression in (target["expr"] for panel in board["panels"] for target in panel["targets"]):
            for name in re.findall(r"\$(\w+)", expression):
                if name not in names and not name.startswith("__"):
                    yield f"{file.name}: no variable {name} for {expression}"


problems = [*kubernetes(), *compose(), *grafana(), *variables(sys.argv[1])]
print("\n".join(problems) or "deploy: as the schemas want it")
sys.exit(bool(problems))
