// What --task joint needs and what it has no use for.

// The model that is trained: the last --model in train_args, else --model, where auto is one model for each task.
def modelOf(given) {
    def named = (given.train_args ?: '').toString().findAll(/--model[ =]+(\w+)/) { _all, name -> name }
    return named ? named.last() : given.task == 'joint' && given.model == 'auto' ? 'sailerx' : given.model
}

// Models of the package that have no joint embedding; of a plug-in's only its own code knows.
def withoutLatent(trials_schema) {
    return trials_schema['$defs'].findAll { _name, about -> !about.latent }.keySet()
}

// Parameters that do not go with the task, a list of sentences.
def taskProblems(given, trials_schema) {
    if (given.task != 'joint') {
        return ['resolution', 'sample_key'].findAll { name -> given[name] != null }.collect { name ->
            "--${name}: belongs to --task joint. What to do: leave it out, or add --task joint"
        }
    }
    def none = withoutLatent(trials_schema)
    def model = modelOf(given)
    def shards = given.shards > 1 ? ['--shards: neighbours and clusters need all cells at once. What to do: leave it out with --task joint'] : []
    def sweep = given.sweep ? ['--sweep: trials are judged by what they predict, which --task joint does not. What to do: leave it out'] : []
    def unfit = !given.checkpoint && model in none
        ? ["--model: ${model} has no joint embedding. What to do: leave it out, or use ${(trials_schema['$defs'].keySet() - none).sort().join(' or ')}"]
        : []
    return shards + sweep + unfit
}
