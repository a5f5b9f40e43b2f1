// Everything that is checked before the first task runs, and what is said at the end. No plug-in is needed: parameters and
// samplesheet are checked against the two JSON schemas that nf-core's tools and Seqera Launch read as well.

include { checkpointProblems } from './checkpoints'
include { heldBy             } from './checkpoints'
include { linesText          } from './checkpoints'

def readJson(path) {
    return new groovy.json.JsonSlurper().parseText(file(path).text)
}

// The smallest number of single-letter changes that turn a into b.
def editDistance(a, b) {
    return b.toList().inject((0..a.size()).toList()) { above, letter ->
        a.toList().withIndex().inject([above[0] + 1]) { row, item ->
            row + [[row.last() + 1, above[item[1] + 1] + 1, above[item[1]] + (item[0] == letter ? 0 : 1)].min()]
        }
    }.last()
}

// " Did you mean X?" where a known name is near, otherwise "".
def nearest(name, known) {
    if (name.size() > 60) {
        return ''
    }
    def best = known.min { candidate -> editDistance(name.toLowerCase(), candidate) }
    return best && editDistance(name.toLowerCase(), best) <= Math.max(2, name.size().intdiv(3)) ? " Did you mean ${best}?" : ''
}

// A path as the user wrote it: beside the samplesheet first, then where Nextflow was started.
def located(value, folder) {
    def text = value.toString()
    if (text.startsWith('/') || text.contains('://') || !folder) {
        return file(text)
    }
    def beside = folder.resolve(text)
    return beside.exists() ? beside : file(text)
}

// What is wrong with one value, judged by its part of a schema: a list of half sentences.
def valueProblems(value, rule, folder = null) {
    if (rule.type == 'boolean') {
        return value instanceof Boolean ? [] : ["must be true or false, not '${value}'${value.toString() in ['true', 'false'] ? '. What to do: leave out the quotes' : ''}"]
    }
    if (value instanceof Boolean) {
        return ['needs a value']
    }
    if (value instanceof Map || value instanceof List) {
        return ["must be one value, not ${value}"]
    }
    if (rule.type in ['integer', 'number']) {
        return numberProblems(value, rule)
    }
    def text = value.toString()
    if (rule.enum && !(text in rule.enum)) {
        return ["is '${text}' but must be one of: ${rule.enum.join(', ')}.${nearest(text, rule.enum)}${rule.errorMessage ? " ${rule.errorMessage}" : ''}"]
    }
    if (rule.pattern && !(text ==~ rule.pattern) || rule.not?.enum?.contains(text)) {
        return ["is '${text}' but ${rule.errorMessage ?: "must match ${rule.pattern}"}"]
    }
    return text.contains('://') ? [] : placeProblems(text, rule, folder)
}

// What is wrong with a path on this machine. Stub runs read no file, so theirs may be empty.
def placeProblems(text, rule, folder) {
    if (!rule.exists) {
        return []
    }
    def path = located(text, folder)
    if (!path.exists()) {
        return ["file not found: ${text}. What to do: mend the path; it is looked up ${folder ? 'beside the samplesheet, then ' : ''}where Nextflow was started"]
    }
    if (path.isDirectory()) {
        return ["is a folder, not a file: ${text}. What to do: give the file in it"]
    }
    if (!java.nio.file.Files.isReadable(path)) {
        return ["may not be read: ${text}. What to do: change its permissions"]
    }
    if (path.size() == 0 && rule.mimetype != 'text/csv' && !workflow.stubRun) {
        return ["is empty (0 bytes): ${text}. What to do: copy or download it again"]
    }
    return []
}

def numberProblems(value, rule) {
    def whole = value instanceof Integer || value instanceof Long
    if (!(value instanceof Number) || value.toDouble().isNaN() || (rule.type == 'integer' && !whole)) {
        def quoted = value instanceof CharSequence && value ==~ /-?[0-9]+(\.[0-9]+)?/
        return ["must be a ${rule.type == 'integer' ? 'whole number' : 'number'}, not '${value}'${quoted ? '. What to do: leave out the quotes' : ''}"]
    }
    if (rule.minimum != null && value < rule.minimum || rule.maximum != null && value > rule.maximum) {
        def most = rule.maximum != null ? " and ${rule.maximum}" : ''
        return ["is ${value} but must be ${most ? 'between' : 'at least'} ${rule.minimum}${most}"]
    }
    return []
}

// All that is wrong with the parameters: a list of sentences that name the option.
def parameterProblems(given, schema) {
    def rules = schema['$defs'].values().collectEntries { group -> group.properties }
    def needed = schema['$defs'].values().collectMany { group -> group.required ?: [] }
    def planned = ['joint', 'annotate', 'describe', 'generate']
    // Nextflow stores --min-peaks as min-peaks and again as minPeaks; one of them is enough to say.
    def doubles = given.keySet().findAll { name -> name.contains('-') }.collect { name -> name.replaceAll(/-([a-zA-Z0-9])/) { hit -> hit[1].toUpperCase() } }
    def unknown = given.keySet()
        .findAll { name -> !rules.containsKey(name) && !(name in doubles) }
        .collect { name -> "--${name}: no such parameter.${nearest(name.replaceAll('-', '_'), rules.keySet())}" }
    def missing = needed.findAll { name -> given[name] == null }.collect { name -> "--${name}: is required. It says: ${rules[name].description}" }
    def wrong = rules.findAll { name, _rule -> given[name] != null }.collectMany { name, rule ->
        name == 'task' && given.task in planned
            ? ["--task ${given.task}: is not there yet. What to do: use --task predict, the only one there is now"]
            : valueProblems(given[name], rule).collect { problem -> "--${name}: ${problem}" }
    }
    return unknown + missing + wrong
}

// The lines of a CSV file that hold something: [line number, [cells]]. Cells without a column that are empty are left away.
def csvLines(text) {
    def lines = text.replace('\uFEFF', '')
        .readLines()
        .withIndex(1)
        .collect { line, number -> [number, line] }
        .findAll { _number, line -> line.trim() && !line.startsWith('#') }
        .collect { number, line -> [number, line.split(/,(?=(?:[^"]*"[^"]*")*[^"]*$)/, -1).collect { cell -> cell.trim().replaceAll(/^"(.*)"$/, '$1').replace('""', '"').trim() }] }
        .findAll { _number, cells -> cells.any() }
    def width = lines ? lines[0][1].findLastIndexOf { cell -> cell != '' } + 1 : 0
    return lines.collect { number, cells -> [number, cells.drop(width).any() ? cells : cells.take(width)] }
}

// Rows of the samplesheet: [line, {column: value}], and all problems of its form.
def sheetRows(path, schema, example = 'sample,role,rna,atac') {
    def text = new String(path.bytes, 'UTF-8')
    if (text.startsWith('PK') || text.contains('\u0000') || text.contains('\uFFFD')) {
        return [[], ["${path.name}: is not plain text in UTF-8. What to do: save it as CSV UTF-8 with commas"]]
    }
    def lines = csvLines(text)
    def columns = schema.items.properties
    if (!lines) {
        return [[], ["${path.name}: is empty. What to do: give a header line such as ${example} and a line for each ${example.tokenize(',')[0]}"]]
    }
    def header = lines[0][1]
    def separator = header.size() == 1 ? [';': 'semicolons', '\t': 'tabs'].find { sign, _name -> header[0].contains(sign) } : null
    if (separator) {
        return [[], ["${path.name}: its cells are separated by ${separator.value}. What to do: save it as CSV with commas"]]
    }
    def first = "line ${lines[0][0]}"
    def strange = header.findAll { name -> !columns.containsKey(name) }.unique(false).collect { name -> name ? "${first}: no such column '${name}'.${nearest(name, columns.keySet())}" : "${first}: a column has no name" }
    def twice = header.findAll { name -> header.count(name) > 1 }.unique(false).collect { name -> "${first}: column '${name}' stands there twice" }
    def lacking = schema.items.required.findAll { name -> !(name in header) }.collect { name -> "${first}: the column '${name}' is missing. What to do: write it into the header, such as ${example}" }
    def uneven = lines.tail().findAll { line -> line[1].size() != header.size() }.collect { line -> "line ${line[0]}: has ${line[1].size()} cells, but the header has ${header.size()}" }
    def rows = lines.tail().findAll { line -> line[1].size() == header.size() }.collect { line ->
        [line[0], [header, line[1]].transpose().collectEntries().findAll { name, value -> value != '' || name in schema.items.required }]
    }
    def none = lines.size() == 1 ? ["${path.name}: has a header but no ${example.tokenize(',')[0]}"] : []
    return [rows, strange + twice + lacking + uneven + none]
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
def trainingProblems(rows, hasCheckpoint) {
    def training = rows.findAll { _line, row -> (row.role ?: 'train') in ['train', 'both'] }
    def whole = training.any { _line, row -> row.h5 || row.h5mu }
    def kinds = training.collectMany { _line, row -> heldBy(row) }.unique().sort()
    if (whole || !kinds) {
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
        "line ${line} (${row.sample}): the rows to train on have ${kinds.join(' and ')}; nothing can be predicted from ${heldBy(row).join(' or ')} by what they teach. What to do: fill the column checkpoint"
    }
}

// The line a problem is about; 0 where it is about the whole samplesheet.
def lineOf(problem) {
    def found = problem =~ /^lines? (\d+)/
    return found ? found[0][1].toInteger() : 0
}

// The samples of the samplesheet, [meta, {column: path}], and all that is wrong with it at once.
def readSamplesheet(path, schema, checkpoint, peaks) {
    def sheet = file(path)
    def (rows, problems) = sheetRows(sheet, schema)
    def hasModel = checkpoint || rows.any { _line, row -> row.role != 'predict' }
    def unused = peaks && !rows.any { _line, row -> row.fragments && row.role != 'predict' } ? ['--peaks: no row to learn from has fragments to count over them. What to do: leave it out'] : []
    def uses = rows.findAll { _line, row -> row.checkpoint || checkpoint }
        .collect { line, row -> [line, row, row.checkpoint ? located(row.checkpoint, sheet.parent) : file(checkpoint), row.checkpoint as boolean] }
    def all = problems + unused +
        rows.collectMany { line, row -> rowProblems(line, row, schema, sheet.parent, hasModel, peaks || checkpoint) } +
        repeatedProblems(rows, sheet.parent) +
        (problems ? [] : trainingProblems(rows, checkpoint as boolean)) +
        (workflow.stubRun ? [] : checkpointProblems(uses))
    if (all) {
        return [[], all.sort(false) { problem -> lineOf(problem) }]
    }
    def samples = rows.collect { line, row ->
        def files = row.findAll { name, _value -> !(name in ['sample', 'role']) }.collectEntries { name, value -> [name, located(value, sheet.parent)] }
        [[id: row.sample, role: row.role ?: 'train', line: line], files]
    }
    return [samples, []]
}

// Samples as one samplesheet for XMODAL_PREPARE, which stages the files as input1/NAME, input2/NAME, ...
def sheetOf(rows) {
    def columns = ['rna', 'atac', 'protein', 'h5mu', 'h5', 'fragments'].findAll { name -> rows.any { _meta, files -> files[name] } }
    def listed = rows.collectMany { meta, files -> columns.findAll { name -> files[name] }.collect { name -> [meta.id, name, files[name]] } }
    def staged = listed.withIndex(1).collectEntries { item, number -> [item.take(2), "input${number}/${item[2].name}"] }
    def lines = rows.collect { meta, _files -> ([meta.id] + columns.collect { name -> staged[[meta.id, name]] ?: '' }).join(',') }
    return [([(['sample'] + columns).join(',')] + lines).join('\n'), listed.collect { item -> item[2] }]
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

// Stop before anything runs, with everything that is wrong; of many things the first 20.
def refuse(what, problems) {
    def more = problems.size() > 20 ? ["  - and ${problems.size() - 20} more"] : []
    def listed = (problems.take(20).collect { problem -> "  - ${problem}" } + more).join('\n')
    error("${what}\n\n${listed}\n\nNothing was run. --help lists the parameters; docs/usage.md describes the samplesheet.\n")
}

workflow PIPELINE_INITIALISATION {
    take:
    given        // map: the parameters
    schema       // path: nextflow_schema.json
    sheet_schema // path: assets/schema_input.json

    main:
    if (given.validate_params) {
        def wrong = parameterProblems(given, readJson(schema))
        if (wrong) {
            refuse("The parameters cannot be used (${wrong.size()} found):", wrong)
        }
    }
    else if (!given.input || !given.outdir) {
        refuse('The parameters cannot be used:', ['--input and --outdir: are required, also with --validate_params false'])
    }
    def (rows, problems) = readSamplesheet(given.input, readJson(sheet_schema), given.checkpoint, given.peaks)
    if (problems) {
        refuse("The samplesheet ${given.input} cannot be used (${problems.size()} found):", problems)
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
