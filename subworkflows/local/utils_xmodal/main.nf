// Everything that is checked before the first task runs, and what is said at the end. No plug-in is needed: parameters and
// samplesheet are checked against the two JSON schemas that nf-core's tools and Seqera Launch read as well.

include { checkpointProblems } from './checkpoints'
include { heldBy             } from './checkpoints'
include { linesText          } from './checkpoints'
include { lineOf             } from './values'
include { located            } from './values'
include { nearest            } from './values'
include { readJson           } from './values'
include { refuse             } from './values'
include { sheetRows          } from './values'
include { taskProblems       } from './joint'
include { isText             } from './cell_text'
include { textRowProblems    } from './cell_text'
include { valueProblems      } from './values'
include { withoutLabels      } from './cell_text'
include { withoutLatent      } from './joint'
include { sweepProblems      } from '../utils_xmodal_sweep/main'
include { trainArgsProblems  } from '../utils_xmodal_sweep/main'

// All that is wrong with the parameters: a list of sentences that name the option.
def parameterProblems(given, schema) {
    def rules = schema['$defs'].values().collectEntries { group -> group.properties }
    def needed = schema['$defs'].values().collectMany { group -> group.required ?: [] }
    // Nextflow stores --min-peaks as min-peaks and again as minPeaks; one of them is enough to say.
    def doubles = given.keySet().findAll { name -> name.contains('-') }.collect { name -> name.replaceAll(/-([a-zA-Z0-9])/) { hit -> hit[1].toUpperCase() } }
    def unknown = given.keySet()
        .findAll { name -> !rules.containsKey(name) && !(name in doubles) }
        .collect { name -> "--${name}: no such parameter.${nearest(name.replaceAll('-', '_'), rules.keySet())}" }
    // Cells from a text need no others where a model is given.
    def alone = given.task == 'generate' && given.checkpoint ? ['input'] : []
    def missing = (needed - alone).findAll { name -> given[name] == null }.collect { name -> "--${name}: is required. It says: ${rules[name].description}" }
    def wrong = rules.findAll { name, _rule -> given[name] != null }.collectMany { name, rule ->
        valueProblems(given[name], rule).collect { problem -> "--${name}: ${problem}" }
    }
    return unknown + missing + wrong
}

// What is wrong with one row, by the schema and by what can be used together.
def rowProblems(number, row, schema, folder, hasModel, hasPeaks) {
    def rule = schema.items
    def where = "line ${number}${row.sample ? " (${row.sample})" : ''}"
    def files = row.keySet().intersect(['rna', 'atac', 'protein', 'h5mu', 'h5'])
    def role = row.role ?: rule.properties.role.default
    def problems = row.findAll { _name, value -> value == '' }.keySet().collect { name -> "${name}: is empty" }
    problems += row.findAll { name, value -> rule.properties.containsKey(name) && value != '' }
        .collectMany { name, value -> valueProblems(value, rule.properties[name], folder).collect { problem -> "${name}: ${problem}" } }
    if (!files && !row.fragments) {
        problems += ["no file: fill one of the columns ${rule.anyOf.collectMany { item -> item.required }.join(', ')}"]
    }
    if (files.size() > 1 && files.intersect(['h5mu', 'h5'])) {
        problems += ["${files.intersect(['h5mu', 'h5']).join(' and ')}: holds all modalities, so the other files (${(files - ['h5mu', 'h5']).join(', ') ?: files.join(', ')}) cannot be given as well"]
    }
    if (row.fragments && role != 'predict' && !hasPeaks) {
        problems += ['fragments: nothing says over which peaks to count. What to do: give --peaks (BED, or a file of peak counts)']
    }
    if (row.checkpoint && role == 'train') {
        problems += ['checkpoint: belongs to a row to predict for. What to do: make its role predict']
    }
    if (role == 'predict' && !row.checkpoint && !hasModel) {
        problems += ['no model to predict with. What to do: give --checkpoint, fill the column checkpoint, or add rows with role train']
    }
    return problems.collect { problem -> "${where}: ${problem}" }
}

// Rows that are the same by mistake: names, cells that would count twice in training, predictions that would be made twice.
def repeatedProblems(rows, folder) {
    def named = rows.findAll { _line, row -> row.sample }.groupBy { _line, row -> row.sample }.findAll { _name, same -> same.size() > 1 }.collect { name, same ->
        "${linesText(same.collect { item -> item[0] })}: the sample '${name}' is given ${same.size()} times; names must differ"
    }
    def whereIs = { value -> located(value, folder).normalize() }
    def filesOf = { row -> row.findAll { name, _value -> name in ['rna', 'atac', 'protein', 'h5mu', 'h5', 'fragments'] } }
    def learned = rows.findAll { _line, row -> (row.role ?: 'train') in ['train', 'both'] }
        .collectMany { line, row -> filesOf(row).values().unique(false).collect { value -> [whereIs(value), line] } }
        .groupBy { item -> item[0] }
        .findAll { _path, same -> same.size() > 1 }
        .collect { path, same -> "${linesText(same.collect { item -> item[1] })}: ${path.name} is the same file in ${same.size()} rows to learn from. What to do: give each sample its own file" }
    def predicted = rows.findAll { _line, row -> row.role == 'predict' && filesOf(row) }
        .groupBy { _line, row -> (filesOf(row) + row.subMap('checkpoint')).collectEntries { name, value -> [name, whereIs(value)] } }
        .findAll { _files, same -> same.size() > 1 }
        .collect { files, same -> "${linesText(same.collect { item -> item[0] })}: the same files (${files.values().collect { path -> path.name }.join(', ')}) in ${same.size()} rows to predict for. What to do: give each sample its own file" }
    return named + learned + predicted
}

// What is wrong with the rows to learn from taken together, and with rows that the model learned from them cannot serve.
// The joint task embeds whatever there is where a model is given.
def trainingProblems(rows, hasCheckpoint, joint = false) {
    def training = rows.findAll { _line, row -> (row.role ?: 'train') in ['train', 'both'] }
    def whole = training.any { _line, row -> row.h5 || row.h5mu }
    def kinds = training.collectMany { _line, row -> heldBy(row) }.unique().sort()
    if (whole || !kinds || joint && hasCheckpoint) {
        return []
    }
    if (kinds.size() == 1) {
        return ["the rows to train on have ${kinds[0]} only. What to do: give a second modality for the same cells"]
    }
    if (hasCheckpoint) {
        return []
    }
    if (!training.any { _line, row -> heldBy(row).size() > 1 }) {
        return ["no row to train on has two modalities. What to do: write files of the same cells into one row"]
    }
    return rows.findAll { _line, row -> row.role == 'predict' && !row.checkpoint && heldBy(row) && !heldBy(row).intersect(kinds) }.collect { line, row ->
        "line ${line} (${row.sample}): the rows to train on have ${kinds.join(' and ')}; nothing can be ${joint ? 'made of' : 'predicted from'} ${heldBy(row).join(' or ')} by what they teach. What to do: fill the column checkpoint"
    }
}

// The samples of the samplesheet, [meta, {column: path}], and all that is wrong with it at once.
// latentless: in the joint task the models that have no embedding, in tasks of cells and text those that learn no labels, else null
// task: which of the tasks of cells and text, else null
def readSamplesheet(path, schema, checkpoint, peaks, sweep = null, latentless = null, task = null) {
    def sheet = file(path.toString())
    def (rows, problems) = sheetRows(sheet, schema)
    def hasModel = checkpoint || rows.any { _line, row -> row.role != 'predict' }
    def unused = peaks && !rows.any { _line, row -> row.fragments && row.role != 'predict' } ? ['--peaks: no row to learn from has fragments to count over them. What to do: leave it out'] : []
    def untried = sweep && !checkpoint && rows && !rows.any { _line, row -> row.role != 'predict' } ? ['--sweep: no row has cells to learn from, so there is nothing to try. What to do: leave it out, or add rows with role train'] : []
    def uses = rows.findAll { _line, row -> row.checkpoint || checkpoint }
        .collect { line, row -> [line, row, row.checkpoint ? located(row.checkpoint, sheet.parent) : file(checkpoint), row.checkpoint as boolean] }
    def all = problems + unused + untried +
        rows.collectMany { line, row -> rowProblems(line, row, schema, sheet.parent, hasModel, peaks || checkpoint) } +
        repeatedProblems(rows, sheet.parent) +
        (problems ? [] : task ? textRowProblems(rows.collect { line, row -> [line, row, heldBy(row)] }, task) : trainingProblems(rows, checkpoint as boolean, latentless != null)) +
        (workflow.stubRun ? [] : checkpointProblems(uses, latentless, task ? 'does not learn what cells are called' : null))
    if (all) {
        return [[], all.sort(false) { problem -> lineOf(problem) }]
    }
    def samples = rows.collect { line, row ->
        def files = row.findAll { name, _value -> !(name in ['sample', 'role']) }.collectEntries { name, value -> [name, located(value, sheet.parent)] }
        [[id: row.sample, role: row.role ?: 'train', line: line], files]
    }
    return [samples, []]
}

// Versions as YAML, process by process.
def versionsText(rows) {
    def steps = rows.groupBy { row -> row[0].tokenize(':').last() }
        .collectEntries { step, entries -> [step, entries.collect { entry -> "    ${entry[1]}: '${entry[2].toString().trim()}'" }.unique().sort()] }
    def own = ['Workflow:', "    crossmodal/xmodal: '${workflow.manifest.version}'", "    Nextflow: '${workflow.nextflow.version}'"]
    return (steps.sort().collectMany { step, lines -> ["${step}:"] + lines } + own).join('\n') + '\n'
}

def helpText(path) {
    def schema = readJson(path)
    def groups = schema['$defs'].values().collect { group ->
        def lines = group.properties.collect { name, rule ->
            def extra = (rule.enum ? [rule.enum.join('|')] : []) + (rule.default != null && rule.default != false ? ["default: ${rule.default}"] : []) + (name in (group.required ?: []) ? ['required'] : [])
            "  --${name.padRight(18)} ${rule.description}${extra ? " [${extra.join('; ')}]" : ''}"
        }
        "${group.title}\n${lines.join('\n')}"
    }
    return """
crossmodal/xmodal ${workflow.manifest.version}: ${schema.description}

  nextflow run main.nf -profile docker --input samplesheet.csv --outdir results

${groups.join('\n\n')}

Profiles: test, test_full, demo, gpu, docker, podman, singularity, apptainer, conda, wave, offline, slurm, k8s, awsbatch, google_batch.
The samplesheet and every file of the results are described in docs/usage.md and docs/output.md.
"""
}

workflow PIPELINE_INITIALISATION {
    take:
    given         // map: the parameters
    schema        // path: nextflow_schema.json
    sheet_schema  // path: assets/schema_input.json
    trials_schema // path: assets/schema_trials.json

    main:
    if (given.validate_params) {
        def wrong = parameterProblems(given, readJson(schema))
        if (wrong) {
            refuse(["The parameters cannot be used (${wrong.size()} found):": wrong])
        }
    }
    else if (!given.input && !(given.task == 'generate' && given.checkpoint) || !given.outdir) {
        refuse(['The parameters cannot be used:': ['--input and --outdir: are required, also with --validate_params false']])
    }
    def trials = readJson(trials_schema)
    def unable = given.task == 'joint' ? withoutLatent(trials) : isText(given.task) ? withoutLabels(trials) : null
    def (rows, problems) = given.input ? readSamplesheet(given.input, readJson(sheet_schema), given.checkpoint, given.peaks, given.sweep, unable, isText(given.task) ? given.task : null) : [[], []]
    def unfit = taskProblems(given, trials)
    def untold = problems ? ["The samplesheet ${given.input} cannot be used (${problems.size()} found):": problems] : [:]
    untold += (unfit ? ["The parameters do not go with --task ${given.task}:": unfit] : [:]) + sweepProblems(given, trials) + trainArgsProblems(given, trials)
    if (untold) {
        refuse(untold)
    }

    emit:
    samples = channel.fromList(rows) // channel: [ val(meta), val(files) ]
}

workflow PIPELINE_COMPLETION {
    take:
    outdir // string: the folder of results
    report // channel: [ val(meta), path(html) ]

    main:
    report.subscribe { _meta, html -> log.info("Report: ${outdir}/report/${html.name}") }
}
