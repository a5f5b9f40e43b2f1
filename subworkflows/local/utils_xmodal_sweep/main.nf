// The file of trials (--sweep): everything that can be wrong with it is said at once, before the first task.

include { lineOf        } from '../utils_xmodal/values'
include { modelOf       } from '../utils_xmodal/joint'
include { nearest       } from '../utils_xmodal/values'
include { readJson      } from '../utils_xmodal/values'
include { sheetRows     } from '../utils_xmodal/values'
include { valueProblems } from '../utils_xmodal/values'

// A cell of the file as the number or truth value its rule asks for, where it is one.
def typed(text, rule) {
    if (rule.type == 'integer' && text.isLong()) {
        return text.toLong()
    }
    if (rule.type == 'number' && text.isBigDecimal()) {
        return text.toBigDecimal()
    }
    return rule.type == 'boolean' && text in ['true', 'false'] ? text == 'true' : text
}

// What is wrong with one value; the limits that do not belong to the range themselves as well.
def cellProblems(text, rule) {
    def value = typed(text, rule)
    def problems = valueProblems(value, rule)
    if (problems || !(value instanceof Number)) {
        return problems
    }
    def low = rule.exclusiveMinimum != null && value <= rule.exclusiveMinimum ? ["is ${text} but must be above ${rule.exclusiveMinimum}"] : []
    def high = rule.exclusiveMaximum != null && value >= rule.exclusiveMaximum ? ["is ${text} but must be below ${rule.exclusiveMaximum}"] : []
    return low + high
}

// The settings of a row, epochs=20 n_latent=16, as a list.
def settingsOf(row) {
    return (row.settings ?: '').tokenize(' ')
}

// What is wrong with the settings of one row, by what its model has.
def settingProblems(row, known) {
    def pairs = settingsOf(row).collect { pair -> pair.tokenize('=') }
    def twice = pairs.collect { pair -> pair[0] }.countBy { name -> name }.findAll { _name, times -> times > 1 }.collect { name, _times -> "settings: ${name} is given twice" }
    return twice + pairs.collectMany { name, value ->
        known.containsKey(name)
            ? cellProblems(value, known[name]).collect { problem -> "settings: ${name} ${problem}" }
            : ["settings: model '${row.model}' has no setting '${name}'.${known ? nearest(name, known.keySet()) ?: " It has ${known.keySet().join(', ')}." : ' It has none.'}"]
    }
}

// What is wrong with one row. Models and settings of plug-ins are not known here: --validate_params false lets them pass.
def trialProblems(line, row, schema, strict) {
    def rules = schema.items.properties
    def required = schema.items.required.findAll { name -> !row[name] }.collect { name -> "${name}: is empty" }
    def cells = row.findAll { name, value -> value && rules.containsKey(name) && (strict || name != 'model') }
        .collectMany { name, value -> cellProblems(value, rules[name]).collect { problem -> "${name}: ${problem}" } }
    def formed = !row.settings || row.settings ==~ rules.settings.pattern
    def settings = strict && formed && schema['$defs'].containsKey(row.model) ? settingProblems(row, schema['$defs'][row.model].properties) : []
    return (required + cells + settings).collect { problem -> "line ${line}${row.name ? " (${row.name})" : ''}: ${problem}" }
}

def repeated(rows, what, key) {
    return rows.findAll { _line, row -> key(row) }
        .groupBy { _line, row -> key(row) }
        .findAll { _key, same -> same.size() > 1 }
        .collect { _key, same -> "lines ${same.collect { item -> item[0] }.join(', ')}: ${what}" }
}

// The trials of a file, maps of name, model, settings and seed, and all that is wrong with it.
def readTrials(path, schema, given) {
    def (rows, form) = sheetRows(file(path.toString()), schema, 'name,model,settings,seed')
    def seedOf = { row -> row.seed ?: given.seed.toString() }
    def problems = form +
        rows.collectMany { line, row -> trialProblems(line, row, schema, given.validate_params) } +
        repeated(rows, 'names of trials must differ') { row -> row.name?.toLowerCase() } +
        repeated(rows, 'these are the same trial') { row -> row.model ? [row.model, settingsOf(row).sort(), seedOf(row)] : null }
    if (problems) {
        return [[], problems.sort(false) { problem -> lineOf(problem) }]
    }
    return [rows.collect { _line, row -> [name: row.name, model: row.model, settings: settingsOf(row), seed: seedOf(row).toInteger()] }, []]
}

// What is wrong with the settings in --train_args, by what the model has; as of trials, so that no task is needed to tell.
def trainArgsProblems(given, schema) {
    def args = (given.train_args ?: '').toString()
    def model = modelOf(given)
    if (!given.validate_params || given.sweep || given.checkpoint || !schema['$defs'].containsKey(model)) {
        return [:]
    }
    // Of a setting that is given twice the last counts.
    def settings = args.findAll(/--set[ =]+(\w+=\S+)/) { _all, pair -> pair }.collectEntries { pair -> [pair.tokenize('=')[0], pair] }
    def problems = settingProblems([model: model, settings: settings.values().join(' ')], schema['$defs'][model].properties)
    return problems ? ["The settings in --train_args cannot be used (${problems.size()} found):": problems.collect { problem -> problem - 'settings: ' }] : [:]
}

// All that is wrong with --sweep, [what cannot be used: problems]; empty where nothing is.
def sweepProblems(given, schema) {
    if (!given.sweep) {
        return [:]
    }
    def problems = readTrials(given.sweep, schema, given)[1]
    def together = given.checkpoint
        ? ['The parameters do not go together:': ['--checkpoint: a given model leaves nothing to try. What to do: leave out --checkpoint or --sweep']]
        : [:]
    return together + (problems ? ["The trials in ${given.sweep} cannot be used (${problems.size()} found):": problems] : [:])
}

// The trials of --sweep, in which sweepProblems found none, or an empty list without it.
def sweepTrials(given, schema_path) {
    if (!given.sweep) {
        return []
    }
    def own = (given.train_args ?: '').toString().findAll(/--(?:model|set|seed|fallback)[ =]+\S+/)
    if (own) {
        log.warn("--train_args: ${own.join(' ')} is left out with --sweep, whose trials have their own. To use it, write it into ${file(given.sweep).name}.")
    }
    return readTrials(given.sweep, readJson(schema_path), given)[0]
}
