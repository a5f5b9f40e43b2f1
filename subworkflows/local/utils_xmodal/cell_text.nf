// What --task annotate, describe and generate need and have no use for.

def isText(task) {
    return task in ['annotate', 'describe', 'generate']
}

// Models of the package that do not learn what cells are called; of a plug-in's only its own code knows.
def withoutLabels(trials_schema) {
    return trials_schema['$defs'].findAll { _name, about -> !about.labels }.keySet()
}

// Parameters that only some of the tasks have, and these tasks.
def ownParameters() {
    def named = ['candidates', 'root', 'threshold', 'cluster_key'].collectEntries { name -> [name, ['annotate', 'describe']] }
    def learned = ['label_terms', 'ontology', 'text_model', 'init', 'cell_model'].collectEntries { name -> [name, ['annotate', 'describe', 'generate']] }
    def worded = ['per', 'group_by', 'decoder', 'language_model'].collectEntries { name -> [name, ['describe']] }
    return named + learned + worded + [prompts: ['generate'], generated_cells: ['generate']]
}

// Parameters of other tasks than the one that is done, a list of sentences.
def foreignProblems(given) {
    return ownParameters().findAll { name, tasks -> given[name] != null && !(given.task in tasks) }.collect { name, tasks ->
        "--${name}: belongs to --task ${tasks.join(', ')}. What to do: leave it out, or choose that task"
    }
}

// model: the one that is trained
def textProblems(given, model, trials_schema) {
    def none = withoutLabels(trials_schema)
    def needed = given.task == 'generate' && !given.prompts ? ["--prompts: is required with --task generate. What to do: give a table with a column 'prompt'"] : []
    def shards = given.shards > 1 ? ["--shards: clusters vote over all cells at once. What to do: leave it out with --task ${given.task}"] : []
    def sweep = given.sweep ? ["--sweep: trials are judged by what they predict, which --task ${given.task} does not. What to do: leave it out"] : []
    def unused = given.links ? ['--links: models of cell types link no peaks to genes. What to do: leave it out'] : []
    def taught = given.checkpoint
        ? ['label_terms', 'init'].findAll { name -> given[name] }.collect { name -> "--${name}: nothing is trained with --checkpoint. What to do: leave one of them out" }
        : []
    def rooted = given.root && given.candidates != 'all' ? ['--root: goes with --candidates all. What to do: add it, or leave out --root'] : []
    def unfit = !given.checkpoint && model in none
        ? ["--model: ${model} does not learn what cells are called. What to do: leave it out, or use ${(trials_schema['$defs'].keySet() - none).sort().join(' or ')}"]
        : []
    def worded = (given.decoder && !given.checkpoint ? ['--decoder: it fits the one model that it was trained for. What to do: give that with --checkpoint'] : []) +
        (given.language_model && !given.decoder ? ['--language_model: goes with --decoder. What to do: add it, or leave out --language_model'] : [])
    return needed + shards + sweep + unused + taught + rooted + worded + unfit
}

// What is wrong with rows of the samplesheet, each [line, row, what it holds]; [] where only its file can tell.
def textRowProblems(rows, task) {
    def without = rows.findAll { _line, _row, held -> held && !('rna' in held) }.collect { line, row, held ->
        "line ${line}${row.sample ? " (${row.sample})" : ''}: holds ${held.join(' and ')} only, and cell types are told by RNA. What to do: fill the column rna"
    }
    def idle = task == 'generate' ? rows.findAll { _line, row, _held -> row.role == 'predict' }.collect { line, row, _held ->
        "line ${line}${row.sample ? " (${row.sample})" : ''}: role: nothing is done with cells to predict for in --task generate. What to do: leave the row out, or make its role train"
    } : []
    return without + idle
}
