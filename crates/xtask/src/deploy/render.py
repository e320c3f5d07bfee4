"""Renders and validates what deploy/ holds, for `cargo xtask deploy-check`.

Only what needs a library happens here: Helm renders, lints and checks values, kubernetes-validate
knows the API. What the objects must be is decided by the caller, who gets everything as JSON.

Reads {"chart": dir, "refused": dir, "versions": [...], "kustomized": {name: yaml}}
from standard input; the rule it keeps: what goes wrong is a finding, never a missing entry.
"""

import json
import pathlib
import sys

import helm_python as helm
import kubernetes_validate
import yaml


def objects_of(text):
    return [doc for doc in yaml.safe_load_all(text) if doc is not None]


def render_chart(chart_dir, values):
    with helm.Chart.load(chart_dir) as chart:
        rendered = chart.render(values, name="superstep", namespace="superstep")
    objects, notes = [], ""
    for path, text in sorted(rendered.items()):
        if path.endswith("NOTES.txt"):
            notes = text
        else:
            objects.extend(objects_of(text))
    return objects, notes


def invalid(name, objects, versions):
    found = []
    for version in versions:
        version = version or kubernetes_validate.latest_version()
        for document in objects:
            what = f"{name}: {document.get('kind')}/{document.get('metadata', {}).get('name')}"
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                found.append(f"{what} is not valid for Kubernetes {version}: {error.message}")
            except (
                kubernetes_validate.SchemaNotFoundError,
                kubernetes_validate.VersionNotSupportedError,
            ) as error:
                found.append(f"{what} cannot be checked for Kubernetes {version}: {error}")
    return found


def main():
    asked = json.load(sys.stdin)
    chart_dir = asked["chart"]
    renders = {name: objects_of(text) for name, text in asked["kustomized"].items()}
    findings, notes = [], {}

    cases = {"defaults": None}
    for path in sorted(pathlib.Path(chart_dir, "ci").glob("*.yaml")):
        cases[path.stem] = helm.values_from_yaml(path.read_text())
    for name, values in cases.items():
        report = helm.lint(chart_dir, values, strict=True)
        for message in report["messages"]:
            # An icon is for catalogues; there is none.
            if message["error"] != "icon is recommended":
                findings.append(f"helm lint ({name}): {message['path']}: {message['error']}")
        findings.extend(f"helm lint ({name}): {error}" for error in report["errors"])
        try:
            renders[f"chart, {name}"], notes[name] = render_chart(chart_dir, values)
        except helm.HelmError as error:
            findings.append(f"the chart does not render with {name}: {error}")

    refused = 0
    for path in sorted(pathlib.Path(asked["refused"]).glob("*.yaml")):
        text = path.read_text()
        expected = text.splitlines()[0].removeprefix("# refused: ").strip()
        try:
            render_chart(chart_dir, helm.values_from_yaml(text))
            findings.append(f"{path.name}: the chart takes values that its schema should refuse")
        except helm.HelmError as error:
            refused += 1
            if expected not in str(error):
                findings.append(f"{path.name}: refused, but not for {expected}: {error}")

    for name, objects in renders.items():
        findings.extend(invalid(name, objects, asked["versions"]))
    with helm.Chart.load(chart_dir) as chart:
        schema = chart.schema
    json.dump(
        {
            "helm": helm.helm_sdk_version(),
            "renders": renders,
            "notes": notes,
            "refused": refused,
            "schema": schema,
            "findings": findings,
        },
        sys.stdout,
    )


main()
