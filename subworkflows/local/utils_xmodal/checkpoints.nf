// What checkpoints can predict, read from their headers before the first task.

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

// [directions: [[source, target], ...], problem: half a sentence]: one of the two is filled.
def checkpointFacts(path) {
    def header = headerOf(path)
    if (!(header instanceof Map)) {
        return [directions: [], problem: 'is not a safetensors file, or is cut. What to do: give the model.safetensors that xmodal train wrote']
    }
    def metadata = header['__metadata__']
    def about = parsed(metadata instanceof Map ? metadata.xmodal : null)
    if (!(about instanceof Map) || !(about.directions instanceof List) || !about.directions) {
        return [directions: [], problem: 'is a safetensors file, but no checkpoint of xmodal. What to do: give the model.safetensors that xmodal train wrote']
    }
    return [directions: about.directions, problem: '']
}

def inWords(directions) {
    return directions.groupBy { source, _target -> source }
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

// Problems of the models that are given: no checkpoint, or none of a row's modalities can be predicted from.
// uses: [[line, row, path of its model, whether that stands in the row], ...]
def checkpointProblems(uses) {
    def local = uses.findAll { use -> use[2].fileSystem == java.nio.file.FileSystems.default && use[2].isFile() && use[2].size() > 0 }
    def facts = local.collect { use -> use[2] }.unique().collectEntries { path -> [path, checkpointFacts(path)] }
    def broken = local.findAll { use -> facts[use[2]].problem }.groupBy { use -> [use[2], use[3]] }.collect { key, same ->
        "${key[1] ? "${linesText(same.collect { use -> use[0] })}: checkpoint" : '--checkpoint'}: ${key[0].name} ${facts[key[0]].problem}"
    }
    def unfit = local.findAll { use -> !facts[use[2]].problem && heldBy(use[1]) }.collectMany { line, row, path, own ->
        def directions = facts[path].directions
        def held = heldBy(row)
        held.intersect(directions.collect { pair -> pair[0] })
            ? []
            : ["line ${line}${row.sample ? " (${row.sample})" : ''}: ${own ? 'checkpoint' : '--checkpoint'}: ${path.name} predicts ${inWords(directions)}; nothing from ${held.join(' or ')}. What to do: give a model that was trained on ${held.join(' or ')}, or cells of ${directions.collect { pair -> pair[0] }.unique().sort().join(' or ')}"]
    }
    return broken + unfit
}
