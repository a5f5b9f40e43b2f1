// What checkpoints can predict or embed, read from their headers before the first task.

// The JSON at the head of a safetensors file, which begins with 8 bytes of its length, lowest first; null where there is none.
def headerOf(path) {
    if (path.size() < 10) {
        return null
    }
    def text = path.withInputStream { stream ->
        def length = java.nio.ByteBuffer.wrap(stream.readNBytes(8)).order(java.nio.ByteOrder.LITTLE_ENDIAN).getLong()
        length < 2 || length > path.size() - 8 ? '' : new String(stream.readNBytes(length as int), 'UTF-8')
    }
    return parsed(text)
}

def parsed(text) {
    try {
        return text ? new groovy.json.JsonSlurper().parseText(text) : null
    }
    catch (groovy.json.JsonException _ignored) {
        return null
    }
}

// [directions: [[source, target], ...], modalities: [...]], or [problem: half a sentence].
// unusable: models that cannot do the task; lack: what they lack for it
def checkpointFacts(path, unusable, lack = 'has no joint embedding') {
    def header = headerOf(path)
    if (!(header instanceof Map)) {
        return [problem: 'is not a safetensors file, or is cut. What to do: give the model.safetensors that xmodal train wrote']
    }
    def metadata = header['__metadata__']
    def about = parsed(metadata instanceof Map ? metadata.xmodal : null)
    if (!(about instanceof Map) || !(about.directions instanceof List)) {
        return [problem: 'is a safetensors file, but no checkpoint of xmodal. What to do: give the model.safetensors that xmodal train wrote']
    }
    if (about.model in unusable) {
        return [problem: "was trained as ${about.model}, which ${lack}. What to do: give another model, or leave it out and train one"]
    }
    def listed = about.vocabulary instanceof Map ? about.vocabulary.modalities.collect { modality -> modality.name } : []
    return [directions: about.directions, modalities: (listed + about.directions.flatten()).unique().sort()]
}

def inWords(directions) {
    return !directions ? 'nothing' : directions.groupBy { source, _target -> source }
        .sort()
        .collect { source, pairs -> "${pairs.collect { pair -> pair[1] }.sort().join(' and ')} from ${source}" }
        .join(', ')
}

// 'line 3' or 'lines 3, 4, 5, 6, 7 and 12 more'
def linesText(numbers) {
    def more = numbers.size() > 5 ? " and ${numbers.size() - 5} more" : ''
    return "line${numbers.size() > 1 ? 's' : ''} ${numbers.take(5).join(', ')}${more}"
}

// What a row says that it holds: modalities, or [] where only its file can tell.
def heldBy(row) {
    def named = row.keySet().intersect(['rna', 'atac', 'protein']).toList() + (row.fragments ? ['atac'] : [])
    return row.h5 || row.h5mu ? [] : named.unique().sort()
}

// Problems of the models that are given: no checkpoint, none of a row's modalities can be predicted from, or (in the joint
// task) is known, or no joint embedding.
// uses: [[line, row, path of its model, whether that stands in the row], ...]
// latentless: in the joint task the models that have no embedding, in tasks of cells and text those that learn no labels, else null
// words: in tasks of cells and text what such models lack, else null
def checkpointProblems(uses, latentless = null, words = null) {
    def local = uses.findAll { use -> use[2].fileSystem == java.nio.file.FileSystems.default && use[2].isFile() && use[2].size() > 0 }
    def facts = local.collect { use -> use[2] }.unique().collectEntries { path -> [path, words ? checkpointFacts(path, latentless ?: [], words) : checkpointFacts(path, latentless ?: [])] }
    def broken = local.findAll { use -> facts[use[2]].problem }.groupBy { use -> [use[2], use[3]] }.collect { key, same ->
        "${key[1] ? "${linesText(same.collect { use -> use[0] })}: checkpoint" : '--checkpoint'}: ${key[0].name} ${facts[key[0]].problem}"
    }
    def unfit = words ? [] : local.findAll { use -> !facts[use[2]].problem && heldBy(use[1]) }.collectMany { line, row, path, own ->
        def held = heldBy(row)
        def used = latentless != null ? facts[path].modalities : facts[path].directions.collect { pair -> pair[0] }.unique().sort()
        def does = latentless != null ? "embeds ${used.join(' and ')}; not ${held.join(' or ')}" : "predicts ${inWords(facts[path].directions)}; nothing from ${held.join(' or ')}"
        held.intersect(used)
            ? []
            : ["line ${line}${row.sample ? " (${row.sample})" : ''}: ${own ? 'checkpoint' : '--checkpoint'}: ${path.name} ${does}. What to do: give a model that was trained on ${held.join(' or ')}${used ? ", or cells of ${used.join(' or ')}" : ''}"]
    }
    return broken + unfit
}
