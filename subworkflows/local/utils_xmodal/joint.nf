// What --task joint needs and what it has no use for; which model each task trains.

include { foreignProblems } from './cell_text'
include { isText          } from './cell_text'
include { textProblems    } from './cell_text'

// The model that is trained: the last --model in train_args, else --model, where auto is one model for each task.
def modelOf(given) {
    def named = (given.train_args ?: '').toString().findAll(/--model[ =]+(\w+)/) { _all, name -> name }
    return named ? named.last() : given.model != 'auto' ? given.model : given.task == 'joint' ? 'sailerx' : isText(given.task) ? 'scmmgpt' : 'auto'
}

// Models of the package that have no joint embedding; of a plug-in's only its own code knows.
def withoutLatent(trials_schema) {
    return trials_schema['$defs'].findAll { _name, about -> !about.latent }.keySet()
}

// A model that learns what cells are called predicts no modality.
def predictProblems(given, model, trials_schema) {
    return !given.checkpoint && !given.sweep && trials_schema['$defs'][model]?.labels
        ? ["--model: ${model} predicts no modality. What to do: leave it out, or use it with --task annotate, describe or generate"]
        : []
}

// Parameters that do not go with the task, a list of sentences.
def taskProblems(given, trials_schema) {
    def model = modelOf(given)
    def foreign = foreignProblems(given)
    if (given.task != 'joint') {
        def own = isText(given.task) ? textProblems(given, model, trials_schema) : predictProblems(given, model, trials_schema)
        return foreign + own + ['resolution', 'sample_key'].findAll { name -> given[name] != null }.collect { name ->
            "--${name}: belongs to --task joint. What to do: leave it out, or add --task joint"
        }
    }
    def none = withoutLatent(trials_schema)
    def shards = given.shards > 1 ? ['--shards: neighbours and clusters need all cells at once. What to do: leave it out with --task joint'] : []
    def sweep = given.sweep ? ['--sweep: trials are judged by what they predict, which --task joint does not. What to do: leave it out'] : []
    def unfit = !given.checkpoint && model in none
        ? ["--model: ${model} has no joint embedding. What to do: leave it out, or use ${(trials_schema['$defs'].keySet() - none).sort().join(' or ')}"]
        : []
    return foreign + shards + sweep + unfit
}
