"""Commands, Galaxy tools and the pipeline's parameters are in step: names, types, ranges, defaults, choices.

The judge (helpers_galaxy_judge.py) is itself tested: each of a list of small drifts must be found.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import cache
from typing import Any

import click
import pytest

from helpers_galaxy_judge import (
    ROOT,
    Exceptions,
    Tool,
    exceptions,
    of_the_table,
    problems,
    with_nextflow,
)
from helpers_wrappers import GALAXY_TOOLS, click_command, expand
from xmodal import __version__
from xmodal.commands import COMMANDS, Command

TOOLS = [c.name for c in COMMANDS if c.galaxy]
MACROS = (GALAXY_TOOLS / "macros.xml").read_text()
MODULES = {folder.name for folder in (ROOT / "modules" / "crossmodal" / "xmodal").iterdir()}
PYTHON_OF_GALAXY = ROOT / ".galaxy" / "bin" / "python"
EXPANDED = """
import sys
from galaxy.util.xml_macros import load
from lxml import etree
for path in sys.argv[1:]:
    root = load(path).getroot()
    root.remove(root.find("macros"))
    print(etree.tostring(root, encoding="unicode").replace("\\n", " "))
"""


def xml(name: str) -> str:
    return (GALAXY_TOOLS / f"xmodal_{name}.xml").read_text()


@cache
def all_tools() -> list[Tool]:
    return [Tool(name, expand(xml(name), MACROS), click_command(name)) for name in TOOLS]


@cache
def rules() -> dict[str, dict[str, Any]]:
    """Parameters of the pipeline."""
    groups = json.loads((ROOT / "nextflow_schema.json").read_text())["$defs"].values()
    return {name: rule for group in groups for name, rule in group["properties"].items()}


def there() -> set[str]:
    return {path.stem.removeprefix("xmodal_") for path in GALAXY_TOOLS.glob("xmodal_*.xml")}


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_agrees_with_its_command(name: str) -> None:
    assert problems(name, xml(name), MACROS, click_command(name)) == []


def test_every_command_has_its_wrappers_or_a_reason() -> None:
    assert of_the_table(COMMANDS, there(), MODULES, exceptions()) == []


def test_the_pipeline_agrees_with_the_commands_and_with_galaxy() -> None:
    assert with_nextflow(all_tools(), rules(), exceptions()) == []


def flat(element: ET.Element) -> list[tuple[str, dict[str, str], str]]:
    """What matters of a tree."""
    return [(e.tag, dict(e.attrib), " ".join((e.text or "").split())) for e in element.iter() if isinstance(e.tag, str)]


def test_macros_are_expanded_as_galaxy_does() -> None:
    if not PYTHON_OF_GALAXY.exists():
        pytest.skip("skipped, because Galaxy is not there: scripts/setup-galaxy")
    paths = [str(GALAXY_TOOLS / f"xmodal_{name}.xml") for name in TOOLS]
    command = [str(PYTHON_OF_GALAXY), "-c", EXPANDED, *paths]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == len(TOOLS)
    for tool, line in zip(all_tools(), lines, strict=True):
        assert flat(tool.root) == flat(ET.fromstring(line)), tool.name


# tool, what is changed (tool, macros or table), old text, new text, words of the judge
MUTATIONS = (
    # names
    ("predict", "tool", 'argument="--min-coverage"', 'argument="--coverage"', "--coverage is no option"),
    ("predict", "macros", 'argument="--top"', 'name="top"', "--top has no param"),
    ("predict", "tool", "--to '$to'", "", "--to is not given"),
    ("predict", "tool", "--min-coverage $", "--coverage $", "--coverage is no option of xmodal predict"),
    ("predict", "tool", "--top $advanced.top", "--top $advanced.seed", "--top gets the value of --seed"),
    ("predict", "tool", "--top $advanced.top", "--top 5", "the value of advanced.top goes nowhere"),
    ("predict", "tool", "--summary summary.json", "", "--summary is given"),
    ("predict", "tool", "--output $output", "--output $output --shard 1/2", "--shard is left out"),
    ("predict", "tool", "--prediction '${sample}", "--predicted '${sample}", "--predicted is no option of xmodal report"),
    ("predict", "tool", "$advanced.force", "", "--force has a param, but is not given"),
    ("train", "macros", "--$name '${name}.h5ad'", "--${name}s '${name}.h5ad'", "--rnas is no option of xmodal prepare"),
    ("evaluate", "tool", "--label-key '$label_key'", "", "--label-key has a param, but is not given"),
    ("models", "tool", "xmodal models $what --json", "xmodal model $what --json", "no command xmodal model"),
    ("train", "tool", "--batch-key '$batch_key'", "--batch-key '$batch'", "$batch is no param"),
    ("evaluate", "tool", "--embedding 'embedding.$scored.embedding.ext'", "", "--embedding has a param, but is not given"),
    ("evaluate", "tool", "--batch-key '$scored.batch_key'", "--batch-key '$label_key'", "gets the value of --label-key"),
    ("annotate", "tool", "--root '$root'", "", "--root has a param, but is not given"),
    ("annotate", "tool", 'value="seen"', 'value="all"', "--candidates is all by default, not seen"),
    ("annotate", "tool", "--report-dir annotation", "--table table.tsv", "options.yml says that --table is left out"),
    ("describe", "tool", 'min="0" max="20" value="5"', 'min="0" max="9" value="5"', "--genes has max 9.0, not 20"),
    ("describe", "tool", "@DEVICE@", "", "@DEVICE@ does not stand before"),
    ("generate", "tool", "--prompt '$one.prompt'", "--prompt $one.prompt", "$one.prompt is not in single quotes"),
    ("generate", "tool", '<add value="/"/>', '<add value="$"/>', "the text asked.prompt admits $"),
    ("train", "tool", "--label-key '$label_key'", "--label-key '$batch_key'", "--label-key gets the value of --batch-key"),
    ("evaluate", "tool", "--generated generated.h5ad", "", "--generated has a param, but is not given"),
    ("embed", "tool", 'argument="--by-modality"', 'argument="--modality"', "--by-modality has no param"),
    ("embed", "tool", "--overview overview", "--table table.tsv", "options.yml says that --table is left out"),
    ("decode", "tool", "--threshold $", "--top $", "--top gets the value of --threshold"),
    ("impute", "tool", "--modality '$one.modality'", "", "written.modalities.modality is not used"),
    ("markers", "tool", "--sample-key '$sample_key'", "--sample-key '$group_by'", "--sample-key gets the value of --group-by"),
    ("report", "tool", "--markers '%s'", "--marker '%s'", "--marker is no option of xmodal report"),
    ("report", "tool", "ln -s '$one.groups'", "ln -s nothing", "the param embeddings.groups is not used"),
    # types, ranges, defaults, choices
    ("predict", "tool", 'type="float" min="0" max="1" value="0.5"', 'type="text" value="0.5"', "--min-coverage is text"),
    ("predict", "tool", 'max="1" value="0.5"', 'max="2" value="0.5"', "--min-coverage has max 2.0, not 1"),
    ("predict", "tool", 'max="1" value="0.5"', 'max="1" value="0.6"', "--min-coverage is 0.6 by default"),
    ("predict", "macros", 'argument="--top" type="integer" min="1"', 'argument="--top" type="integer" min="0"', "--top has min"),
    ("predict", "tool", '<option value="valid">valid</option>', "", "--split has the choices train, test, not"),
    ("predict", "macros", '<option value="0.95">', '<option value="0.99">', "--interval has the choices"),
    ("predict", "macros", '<option value="0.9" selected="true">', '<option value="0.9">', "--interval is 0.5 by default"),
    ("predict", "tool", 'truevalue="--force"', 'truevalue="--forced"', "--forced is no option"),
    ("predict", "tool", 'value="atac" optional="false"', 'value="" optional="false"', "excuses --to: default"),
    ("predict", "tool", '<validator type="empty_field"', '<validator type="none"', "--to is optional"),
    ("predict", "macros", '"--checkpoint" type="data"', '"--checkpoint" type="text"', "--checkpoint is text, not data"),
    ("train", "tool", '<option value="depth">', '<option value="babel">', "--model has the choices"),
    ("train", "tool", 'argument="--seed" type="integer" min="0"', 'argument="--seed" type="integer"', "--seed has min None"),
    ("train", "tool", '"--links" type="data" format="tabular" optional="true"', '"--links" type="data" format="tabular"',
     "--links is required"),
    ("evaluate", "tool", '<option value="depth" selected="true">', '<option value="depth">', "--controls is mean,linear"),
    ("evaluate", "tool", 'min="0" value="3000"', 'min="1" value="3000"', "--umap-cells has min 1.0, not 0"),
    ("evaluate", "tool", '<option value="wnn" selected="true">', '<option value="wnn">', "--comparators is rna_pca"),
    ("evaluate", "tool", '<option value="rna_pca" selected="true">', '<option value="pca" selected="true">', "--comparators"),
    ("embed", "tool", 'min="2" value="15"', 'min="2" value="10"', "--neighbors is 10 by default"),
    ("embed", "tool", 'min="2" value="15"', 'value="15"', "--neighbors has min None, not 2"),
    ("embed", "tool", 'value="auto"', 'value="1.0"', "--resolution is 1.0 by default, not auto"),
    ("embed", "macros", '<option value="valid">valid</option>', "", "--split has the choices train, test, not"),
    ("impute", "macros", 'type="float" min="0" max="1" value="0.5"', 'type="float" value="0.5"', "--min-coverage has min"),
    ("markers", "tool", 'min="1" max="50"', 'min="1" max="5"', "--top has max 5.0, not 50"),
    ("markers", "tool", '<option value="pseudobulk">', '<option value="deseq2">', "--method has the choices"),
    ("prepare", "tool", 'argument="--count" type="select"', 'argument="--count" type="select" multiple="true"', "--count"),
    ("prepare", "tool", 'min="1" value="1000"', 'min="0" value="1000"', "--min-fragments has min 0.0, not 1"),
    ("prepare", "tool", 'value="0.005"', 'value="0.01"', "--min-peak-fraction is 0.01 by default"),
    ("check", "macros", '<option value="nb">', '<option value="poisson">', "--likelihood has the choices"),
    # what reaches the shell
    ("predict", "tool", "--to '$to'", "--to $to", "$to is not in single quotes"),
    ("predict", "tool", "--to '$to'", '--to "$to"', "$to is not in single quotes"),
    ("predict", "tool", "ln -s '$cells'", "ln -s $cells", "$cells is not in single quotes"),
    ("embed", "tool", "--resolution '$advanced.resolution'", "--resolution $advanced.resolution", "not in single quotes"),
    ("embed", "tool", '<add value="."/>', '<add value=";"/>', "the text advanced.resolution admits ;"),
    ("impute", "tool", "--modality '$written.modality'", "--modality $written.modality", "not in single quotes"),
    ("markers", "tool", "$harmless($cells.element_identifier)", "str($cells.element_identifier)", "$harmless"),
    ("predict", "tool", "$harmless($cells.element_identifier)", "str($cells.element_identifier)", "does not go through"),
    ("predict", "tool", "${sample}=summary.json", "${cells.name}=summary.json", "does not go through $harmless"),
    ("check", "tool", "$harmless($given.cells.element_identifier)", "str($given.cells.element_identifier)", "$harmless"),
    ("predict", "tool", "@NAMES@", "", "$harmless is not defined"),
    ("predict", "tool", "ln -s '$cells'", "ln -s somewhere", "the dataset cells is not read"),
    ("train", "tool", "xmodal report\n", "\n", "--training stands outside of any call"),
    ("predict", "tool", "#end if\n            --checkpoint", "--checkpoint", "#if, but"),
    ("predict", "tool", "--title 'Predicted from ${sample}'", "--title 'Predicted from ${sample}", "is not closed"),
    ("predict", "macros", "'$model.installed.fields.path'", "$model.installed.fields.path", "not in single quotes"),
    ("predict", "macros", "sanitizer", "cleaner", "no sanitizer or no validator"),
    ("predict", "macros", '<add value="_"/>', '<add value="\'"/>', "the text to admits '"),
    ("predict", "macros", "string.ascii_letters", "string.printable", "the text to admits string.printable"),
    ("predict", "tool", "$advanced.split\n", "$split\n", "$split is no param"),
    ("prepare", "tool", "--genome '$reading.genome'", "--genome $reading.genome", "not in single quotes"),
    ("models", "tool", "\"'%s'\" % $model.kind", "'%s' % $model.kind", "$what is not in single quotes"),
    ("predict", "macros", "#echo re.sub('[^A-Za-z0-9_.]+', '_', str($name)).strip('_.') or 'cells'#", "#echo $name#",
     "another function than the known $harmless"),
    ("predict", "macros", "[^A-Za-z0-9_.]+", "[^A-Za-z0-9_.$]+", "another function than the known $harmless"),
    ("predict", "macros", "[^A-Za-z0-9_.]+", "[^A-Za-z0-9_. ]+", "another function than the known $harmless"),
    # how commands are joined
    ("predict", "tool", "'cells.$cells.ext' &&\n        xmodal report", "'cells.$cells.ext' ;\n        xmodal report",
     "; stands behind"),
    ("predict", "tool", "'cells.$cells.ext' &&\n        xmodal report", "'cells.$cells.ext'\n        xmodal report",
     "no && before xmodal report"),
    ("predict", "tool", "@THREADS@ &&", "@THREADS@ &", "& stands behind"),
    ("predict", "tool", "@THREADS@ &&", "@THREADS@ | tee log &&", "| stands behind"),
    ("predict", "tool", "mv $output prediction", "", "&& stands where nothing follows"),
    ("predict", "tool", "mv $output prediction", "rm -r $output", "rm is none of the commands"),
    ("predict", "tool", "--seed $advanced.seed", "--seed \"\\$(date)\"", "$( stands behind"),
    ("predict", "tool", "--seed $advanced.seed", "--seed `date`", "` stands behind"),
    ("models", "tool", "> model.json &&", "> model.json ||", "|| stands behind"),
    ("models", "tool", "'model.safetensors'", "'model.safetensors; true'", "; stands in"),
    ("models", "macros", "model.safetensors &&", "model.safetensors", "no && before"),
    ("prepare", "tool", "exit 3;", "exit 3; true;", "true; is none of the commands"),
    ("prepare", "tool", ">&2 && exit 3;", "&& exit 3;", "; stands behind '&& exit 3'"),
    ("train", "tool", "mkdir named &&", "mkdir named;", "; stands behind"),
    # the GPU
    ("predict", "tool", "@DEVICE@", "", "@DEVICE@ does not stand before"),
    ("train", "tool", "@DEVICE@", "", "@DEVICE@ does not stand before"),
    ("embed", "tool", "@DEVICE@", "", "@DEVICE@ does not stand before"),
    ("impute", "tool", "@DEVICE@", "", "@DEVICE@ does not stand before"),
    ("embed", "tool", 'macro="may_use_a_gpu"', 'macro="requirements"', "the macro may_use_a_gpu"),
    ("markers", "tool", 'macro="requirements"', 'macro="may_use_a_gpu"', "the macro may_use_a_gpu"),
    ("models", "tool", "@MODEL@", "@DEVICE@ @MODEL@", "@DEVICE@ is for the tools"),
    ("predict", "tool", 'macro="may_use_a_gpu"', 'macro="requirements"', "the macro may_use_a_gpu"),
    ("train", "tool", 'macro="may_use_a_gpu"', 'macro="requirements"', "the macro may_use_a_gpu"),
    ("models", "tool", 'macro="requirements"', 'macro="may_use_a_gpu"', "the macro may_use_a_gpu"),
    ("train", "macros", 'cuda_device_count_min">0', 'cuda_device_count_min">1', "the macro may_use_a_gpu"),
    ("train", "macros", "XMODAL_DEVICE=cuda", "XMODAL_DEVICE=cpu", "@DEVICE@ makes 'cpu' of"),
    ("train", "macros", "XMODAL_DEVICE=cpu", "XMODAL_DEVICE=cuda", "@DEVICE@ makes 'cuda' of"),
    ("train", "macros", "${GPU_AVAILABLE:-}", "${GPU_AVAILABEL:-}", "@DEVICE@ makes '' of"),
    ("train", "macros", "export XMODAL_DEVICE=cuda", "export XMODAL_DEVISE=cuda", "@DEVICE@ makes '' of"),
    ("train", "macros", "export XMODAL_DEVICE=cuda", "XMODAL_DEVICE=cuda", "@DEVICE@ makes '' of"),
    ("train", "macros", 'case "', 'caze "', "@DEVICE@ does not stand before"),
    # threads, device, image, version, conventions
    ("predict", "tool", "@THREADS@ &&", "--threads 4 &&", "the threads of xmodal report are not those"),
    ("predict", "macros", "GALAXY_SLOTS:-1", "GALAXY_SLOTS:-8", "the threads of xmodal predict"),
    ("predict", "tool", "--seed $advanced.seed", "--seed $advanced.seed --device cuda", "--device is the administrator's"),
    ("predict", "macros", "ghcr.io/crossmodal/xmodal:", "quay.io/crossmodal/xmodal:", "the container is"),
    ("predict", "macros", f'"@TOOL_VERSION@">{__version__}', '"@TOOL_VERSION@">0.0.0', "is not that of the package"),
    ("predict", "tool", "@TOOL_VERSION@+galaxy@VERSION_SUFFIX@", "@TOOL_VERSION@", "is not that of the package"),
    ("predict", "tool", 'id="xmodal_predict"', 'id="predict"', "the id is 'predict'"),
    ("predict", "tool", ' detect_errors="exit_code"', "", "the error detection is None"),
    ("predict", "tool", ' profile="@PROFILE@"', "", "the profile"),
    ("predict", "macros", "xmodal --version</version_command>", "xmodal</version_command>", "the version command is"),
    ("predict", "tool", 'from_work_dir="report.html"', 'from_work_dir="page.html"', "nothing writes the output report"),
    ("predict", "tool", 'expect_num_outputs="6"', "", "how many outputs"),
    ("predict", "tool", "assert_stderr>", "assert_stdout>", "no test of a refusal looks at the message"),
    ("predict", "tool", "assert_contents", "assert_nothing", "fewer than two tests"),
    ("predict", "tool", "help", "manual", "the help is missing"),
    # the table of exceptions
    ("predict", "table", "--shard: Galaxy never shards", "--shards: Galaxy never shards", "--shards, which xmodal predict"),
    ("predict", "table", "--rows: Galaxy never shards", "--top: Galaxy never shards", "--rows has no param"),
    ("predict", "table", "--rows: Galaxy never shards", "--rows:", "gives no reason for --rows"),
    ("predict", "table", "    differs:\n      --to:\n        default", "    differs:\n      --top:\n        default", "--to is"),
    ("predict", "table", "  --to:\n        default:", "  --to:\n        default: it is so\n        type:", "excuses --to: type"),
    ("train", "table", "--trial: Galaxy trains one model", "--seed: one model", "--seed is left out"),
    ("models", "table", "  left_out:\n    --device:", "  left_out:\n    --devices:", "--device has no param"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "where", "old", "new", "said"), MUTATIONS)
def test_each_drift_of_a_tool_is_found(name: str, where: str, old: str, new: str, said: str) -> None:
    texts = {"tool": xml(name), "macros": MACROS, "table": exceptions().text}
    assert old in texts[where], "the text to change is not there any more"
    changed = texts | {where: texts[where].replace(old, new)}
    found = problems(name, changed["tool"], changed["macros"], click_command(name), Exceptions(changed["table"]))
    assert any(said in problem for problem in found), found


def with_option(name: str, flag: str, **values: Any) -> click.Command:
    """The command, with an option that is another."""
    command = copy.copy(click_command(name))
    command.params = [copy.copy(p) for p in command.params]
    option = next(p for p in command.params if flag in p.opts)
    assert any(getattr(option, key) != value for key, value in values.items())
    for key, value in values.items():
        setattr(option, key, value)
    return command


OF_COMMANDS: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("predict", "--min-coverage", {"default": 0.7}, "--min-coverage is 0.5 by default, not 0.7"),
    ("predict", "--min-coverage", {"type": click.FloatRange(0.1, 1)}, "--min-coverage has min 0.0, not 0.1"),
    ("predict", "--split", {"type": click.Choice(["train", "test"])}, "--split has the choices"),
    ("predict", "--top", {"type": click.FLOAT}, "--top is integer, not float"),
    ("predict", "--from", {"required": True}, "--from is optional"),
    ("predict", "--force", {"opts": ["--go-on"]}, "--go-on has no param"),
    ("predict", "--seed", {"default": 1}, "--seed is 0 by default, not 1"),
    ("train", "--links", {"multiple": True}, "--links can be given once, not often"),
    ("train", "--model", {"default": "crossmp"}, "--model is auto by default, not crossmp"),
    (
        "evaluate",
        "--cells",
        {"type": click.Choice(["asked", "test", "valid", "all", "train"])},
        "--cells has the choices",
    ),
    ("evaluate", "--clusters", {"default": True}, "--clusters is False by default, not True"),
    ("prepare", "--min-peaks", {"default": 5}, "--min-peaks is 0 by default, not 5"),
)


@pytest.mark.parametrize(("name", "flag", "values", "said"), OF_COMMANDS)
def test_each_drift_of_a_command_is_found(name: str, flag: str, values: dict[str, Any], said: str) -> None:
    found = problems(name, xml(name), MACROS, with_option(name, flag, **values))
    assert any(said in problem for problem in found), found


def test_a_new_option_needs_a_param_or_a_reason() -> None:
    command = copy.copy(click_command("evaluate"))
    command.params = [*command.params, click.Option(["--rotate"], type=int)]
    assert "--rotate has no param, and options.yml does not say why" in problems(
        "evaluate", xml("evaluate"), MACROS, command
    )


OF_THE_SCHEMA: tuple[tuple[str, str, Any, str], ...] = (
    ("seed", "default", 1, "--seed is 1 by default, not 0"),
    ("seed", "type", "number", "--seed is float, not integer"),
    ("min_peak_fraction", "maximum", 2, "--min-peak-fraction has max 2, not 1"),
    ("min_peak_fraction", "default", 0.01, "--min-peak-fraction is 0.01 by default"),
    ("min_rna_counts", "minimum", 1, "--min-rna-counts has min 1, not 0"),
    ("min_fragments", "minimum", 0, "--min-fragments has min 0, not 1"),
    ("count", "enum", ["cuts"], "--count has the choices cuts, not cuts, fragments"),
    ("model", "default", "crossmp", "--model is crossmp by default, not auto"),
    ("model", "enum", ["mean", "auto"], "--model has the choices mean, auto"),
    ("genome", "enum", ["hg38"], "--genome is select, not text"),
    ("links", "format", "text", "--links is text, not data"),
)


@pytest.mark.parametrize(("name", "key", "value", "said"), OF_THE_SCHEMA)
def test_each_drift_of_the_pipeline_is_found(name: str, key: str, value: Any, said: str) -> None:
    assert rules()[name].get(key) != value
    changed = rules() | {name: rules()[name] | {key: value}}
    found = with_nextflow(all_tools(), changed, exceptions())
    assert any(said in problem for problem in found), found


def test_the_pipeline_is_compared_with_the_forms_of_galaxy_too() -> None:
    text = xml("prepare")
    assert 'value="0.005"' in text and 'min="1" value="1000"' in text
    changed = text.replace('min="1" value="1000"', 'min="5" value="1000"')
    tools = [t for t in all_tools() if t.name != "prepare"]
    tools.append(Tool("prepare", expand(changed, MACROS), click_command("prepare")))
    assert "--min-fragments has min 1, not 5.0" in with_nextflow(tools, rules(), exceptions())


def test_an_excuse_of_the_pipeline_that_is_not_needed_is_found() -> None:
    changed = rules() | {"seed": {k: v for k, v in rules()["seed"].items() if k != "maximum"}}
    assert "options.yml excuses --seed: max, but there it does not differ" in with_nextflow(
        all_tools(), changed, exceptions()
    )


Wrappers = tuple[list[Command], set[str], set[str]]
OF_THE_TABLE: tuple[tuple[Callable[[Wrappers], object], str], ...] = (
    (lambda w: w[0].append(Command("rotate", "Rotate.", True, True)), "xmodal rotate has no galaxy"),
    (lambda w: w[0].append(Command("rotate", "Rotate.", True, True)), "xmodal rotate has no module"),
    (lambda w: w[0].append(Command("rotate", "Rotate.", False, False)), "xmodal rotate: why not?"),
    (lambda w: w[1].add("rotate"), "the galaxy rotate has no command"),
    (lambda w: w[1].remove("predict"), "xmodal predict has no galaxy"),
    (lambda w: w[1].remove("report"), "options.yml names report, which is no tool"),
    (lambda w: w[2].remove("merge"), "xmodal merge has no module"),
    (lambda w: w[0].append(dataclasses.replace(next(c for c in w[0] if c.name == "merge"), why_not=" ")), "why not?"),
)


@pytest.mark.parametrize(("change", "said"), OF_THE_TABLE)
def test_each_missing_wrapper_is_found(change: Callable[[Wrappers], object], said: str) -> None:
    wrappers: Wrappers = (list(COMMANDS), there(), set(MODULES))
    change(wrappers)
    found = of_the_table(*wrappers, exceptions())
    assert any(said in problem for problem in found), found
