"""Every command that the table says is wrapped has its module, which passes only options that the command has.

The judge, :func:`problems`, is itself tested: each of a list of small mistakes must be found.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
import yaml

from helpers_nextflow import ROOT
from helpers_wrappers import click_command, flags_of
from xmodal import __version__
from xmodal.commands import COMMANDS
from xmodal.data import sheets

MODULES = ROOT / "modules" / "crossmodal" / "xmodal"
WRAPPED = [c.name for c in COMMANDS if c.module]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
NEEDED = ("task.ext.args ?: ''", "task.ext.prefix ?:", "task.ext.when == null", 'conda "${moduleDir}/environment.yml"')
FOREIGN = ("projectDir", "template ", "launchDir", "params.")
VERSION = """tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'")"""


def required(command: click.Command) -> list[set[str]]:
    return [set(p.opts) for p in command.params if isinstance(p, click.Option) and p.required]


def part(text: str, start: str, end: str) -> str:
    """What stands between two labels of a process."""
    return text.partition(f"\n    {start}:\n")[2].partition(f"\n    {end}:\n")[0]


def container(gpu: bool) -> str:
    """The directive's value: images of containers/images.yml."""
    images = yaml.safe_load((ROOT / "containers" / "images.yml").read_text())
    return f""""${{ task.accelerator ? '{images["gpu"]}' : '{images["cpu"]}' }}\"""" if gpu else f'"{images["cpu"]}"'


def problems(name: str, text: str, command: click.Command) -> list[str]:
    """What is wrong with ``text``, a module's main.nf, as the wrapper of ``command``."""
    found = []
    script = part(text, "script", "stub")
    passed = set(OPTION.findall(script))
    if not re.search(rf"^process XMODAL_{name.upper()} \{{", text):
        found.append("the process has another name")
    if re.findall(r"\bxmodal ([a-z]+) \\", script) != [name]:
        found.append("the script must run this command once")
    found += [f"{flag} is no option of xmodal {name}" for flag in sorted(passed - flags_of(command))]
    found += [f"{'/'.join(sorted(names))} is not given" for names in required(command) if not names & passed]
    found += [f"{flag} is not given" for flag in ("--threads", "--device") if flag not in passed]
    if "--threads ${task.cpus}" not in script:
        found.append("threads are not those of the task")
    on_gpu = {"task.accelerator" in text, "label 'process_gpu'" in text, "--device ${device}" in script}
    if len(on_gpu) > 1:
        found.append("device, image and label do not agree on the GPU")
    if f"    container {container(gpu=any(on_gpu))}\n" not in text:
        found.append("the image is not the one of this version")
    found += [f"{needed} is missing" for needed in NEEDED if needed not in text]
    if VERSION not in text or "topic: versions" not in text:
        found.append("the version does not go to the topic")
    found += [f"{word} does not travel with the module" for word in FOREIGN if word in text]
    return found


def module(name: str) -> str:
    return (MODULES / name / "main.nf").read_text()


def test_the_images_are_of_this_version() -> None:
    images = yaml.safe_load((ROOT / "containers" / "images.yml").read_text())
    assert images["cpu"].endswith(f":{__version__}") and images["gpu"] == f"{images['cpu']}-cuda"


def snapshots() -> list[Path]:
    return sorted(path for kind in ("modules", "subworkflows") for path in (ROOT / kind).rglob("main.nf.test.snap"))


def versions_in(content: object) -> set[str]:
    """Versions of xmodal in a snapshot: the triples [process, "xmodal", version] of the topic, wherever they stand."""
    if isinstance(content, dict):
        return {v for inner in content.values() for v in versions_in(inner)}
    if not isinstance(content, list):
        return set()
    own = {str(content[2])} if len(content) == 3 and content[1] == "xmodal" else set()
    return own | {v for inner in content for v in versions_in(inner)}


def test_snapshots_are_of_this_version() -> None:
    found = {str(path.relative_to(ROOT)): versions_in(json.loads(path.read_text())) for path in snapshots()}
    assert {name: versions for name, versions in found.items() if versions - {__version__}} == {}
    assert sum(versions == {__version__} for versions in found.values()) >= len(WRAPPED)  # every module shows it


@pytest.mark.parametrize("path", snapshots(), ids=lambda p: p.parents[1].name)
def test_snapshots_are_of_the_tests_there_are(path: Path) -> None:
    tests = re.findall(r'^    test\("(.+)"\)', path.with_suffix("").read_text(), re.M)
    assert sorted(json.loads(path.read_text())) == sorted(tests)


def test_the_snapshot_of_markers_has_the_columns_of_the_table() -> None:
    from xmodal.markers.comparison import COLUMNS

    content = json.loads((MODULES / "markers/tests/main.nf.test.snap").read_text())
    assert content["markers - simulated cells"]["content"][1] == "\t".join(COLUMNS)


def test_the_table_and_the_folders_name_the_same_modules() -> None:
    assert sorted(WRAPPED) == sorted(folder.name for folder in MODULES.iterdir())
    assert all(c.why_not for c in COMMANDS if not c.module)


@pytest.mark.parametrize("name", WRAPPED)
def test_a_module_agrees_with_its_command(name: str) -> None:
    assert problems(name, module(name), click_command(name)) == []


@pytest.mark.parametrize("name", WRAPPED)
def test_a_module_has_its_files(name: str) -> None:
    folder = MODULES / name
    meta = yaml.safe_load((folder / "meta.yml").read_text())
    assert meta["name"] == f"xmodal_{name}" and "xmodal" in meta["tools"][0]
    environment = yaml.safe_load((folder / "environment.yml").read_text())
    assert environment["dependencies"][-1] == {"pip": [f"xmodal=={__version__}"]}
    assert (folder / "tests/main.nf.test").is_file()
    assert (folder / "tests/gpu.nf.test").is_file() == ("process_gpu" in module(name))
    emitted = set(re.findall(r"emit: (\w+)", part(module(name), "output", "when")))
    assert emitted == set(meta["output"])


@pytest.mark.parametrize("name", [name for name in WRAPPED if "${prefix}/" in module(name)])
def test_no_sample_or_trial_is_called_like_a_folder_that_files_are_handed_over_in(name: str) -> None:
    """The output folder of these modules has the name of the sample or the trial."""
    staged = set(re.findall(r"stageAs: '([^'/]+)/\*'", module(name)))
    names = {folder.replace("?", number) for folder in staged for number in ("", "1", "12")}
    assert staged and {n for n in names if not sheets.RESERVED.fullmatch(n)} == set()


def test_reserved_names_are_refused_by_both_schemas() -> None:
    for file, column in (("schema_input.json", "sample"), ("schema_trials.json", "name")):
        rule = json.loads((ROOT / "assets" / file).read_text())["items"]["properties"][column]
        assert rule["not"] == {"pattern": f"^({sheets.RESERVED.pattern})$"}
        assert rule["errorMessage"].endswith(f" not {sheets.OWN_NAMES}")


def in_words(text: str) -> set[str]:
    """Names of the inputs of a process: val(meta), path(cells, ...)."""
    return set(re.findall(r"\b(?:val|path)[ (](\w+)", part(text, "input", "output")))


@pytest.mark.parametrize("name", WRAPPED)
def test_every_input_is_described(name: str) -> None:
    meta = yaml.safe_load((MODULES / name / "meta.yml").read_text())
    groups = [group if isinstance(group, list) else [group] for group in meta["input"]]
    described = {key for group in groups for item in group for key in item}
    assert described == in_words(module(name))


MUTATIONS = (
    ("predict", "--checkpoint ${checkpoint}", "--model ${checkpoint}"),
    ("predict", "--output ${prefix}.h5ad", ""),
    ("predict", "--threads ${task.cpus}", "--threads 4"),
    ("predict", "--to ${target}", ""),
    ("predict", "xmodal predict", "xmodal-predict"),
    ("predict", "process XMODAL_PREDICT", "process PREDICT"),
    ("predict", "label 'process_gpu'", "label 'process_high'"),
    ("predict", "--shard ${shard}", "--part ${shard}"),
    ("train", "--device ${device}", "--device cuda"),
    ("train", "--gene-table ${gene_table}", "--genes ${gene_table}"),
    ("train", "xmodal:0.1.0'", "xmodal:0.0.9'"),
    ("train", "topic: versions", ""),
    ("check", "--device cpu", "--device ${device}"),
    ("check", "${moduleDir}/environment.yml", "${projectDir}/environment.yml"),
    ("prepare", "task.ext.args ?: ''", "''"),
    ("evaluate", "--prediction ${target}", "--predicted ${target}"),
    ("report", "'--evaluation': evaluation", "'--scores': evaluation"),
    ("report", "'--markers': markers", "'--marker': markers"),
    ("merge", "--output ${prefix}", "--output ${params.outdir}/${prefix}"),
    ("embed", "--overview ${prefix}", "--picture ${prefix}"),
    ("embed", "--checkpoint ${checkpoint}", ""),
    ("impute", "label 'process_gpu'", ""),
    ("markers", "--device cpu", "--device ${device}"),
    ("evaluate", "--embedding ${embedding}", "--embedded ${embedding}"),
    ("evaluate", "--description ${description}", "--described ${description}"),
    ("annotate", "--report-dir ${prefix}", "--report ${prefix}"),
    ("annotate", "--candidates ${candidates}", "--candidate ${candidates}"),
    ("describe", "--output-dir ${prefix}", "--output ${prefix}"),
    ("generate", "--output ${prefix}.h5ad", ""),
    ("generate", "--text-model ${text_model}", "--encoder ${text_model}"),
    ("train", "--label-terms ${label_terms}", "--terms ${label_terms}"),
)


@pytest.mark.parametrize(("name", "old", "new"), MUTATIONS)
def test_the_judge_finds_each_mistake(name: str, old: str, new: str) -> None:
    text = module(name)
    assert old in text
    assert problems(name, text.replace(old, new), click_command(name)) != []


def configured_options() -> dict[str, set[str]]:
    """Options that the configuration passes through ext.args, by command."""
    text = "".join((ROOT / f"conf/{name}.config").read_text() for name in ("modules", "joint", "cell_text", "sweep"))
    blocks = re.findall(r"withName: '(?:\.\*:.*:)?XMODAL_([A-Z]+)(?:_NEW|_TRIAL)?' \{(.*?)\n    \}", text, re.S)
    found: dict[str, set[str]] = {}
    for name, block in blocks:
        found.setdefault(name.lower(), set()).update(OPTION.findall(block))
    return found


def test_the_pipeline_passes_only_options_that_commands_have() -> None:
    options = configured_options()
    assert {
        "prepare",
        "train",
        "predict",
        "evaluate",
        "embed",
        "impute",
        "markers",
        "annotate",
        "describe",
        "generate",
    } <= set(options)
    for name, passed in options.items():
        assert passed <= flags_of(click_command(name)), name


@pytest.mark.parametrize(
    "name", [f"crossmodal_{name}" for name in ("train", "predict", "sweep", "joint_embed", "cell_text")]
)
def test_a_subworkflow_lists_its_modules(name: str) -> None:
    folder = ROOT / "subworkflows" / "crossmodal" / name
    text = (folder / "main.nf").read_text()
    include = r"include \{ XMODAL_([A-Z]+)(?: as \w+)? +\} from '\.\./\.\./\.\./modules/crossmodal/xmodal/(\w+)/main'"
    included = re.findall(include, text)
    inner = re.findall(r"include \{ (\w+) +\} from '\.\./(\w+)/main'", text)
    assert len(included) + len(inner) == text.count("include {")
    assert all(workflow.lower() == folder for workflow, folder in inner)
    assert included and all(process == command.upper() for process, command in included)
    components = yaml.safe_load((folder / "meta.yml").read_text())["components"]
    assert components == sorted({*(f"xmodal/{command}" for _, command in included), *(folder for _, folder in inner)})
    assert len(Path(folder / "main.nf").read_text().splitlines()) < 120
