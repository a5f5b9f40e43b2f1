// Predict in every direction the checkpoint knows, in shards; merge; score where the truth was measured.

include { XMODAL_EVALUATE } from '../../../modules/crossmodal/xmodal/evaluate/main'
include { XMODAL_MERGE    } from '../../../modules/crossmodal/xmodal/merge/main'
include { XMODAL_PREDICT  } from '../../../modules/crossmodal/xmodal/predict/main'

// Predictions are computed in padded batches of this size; shard edges lie on its multiples, so that any number of shards
// gives the same bytes.
def batchSize() {
    return 512
}

// What a prepared file holds: modalities with cells, and how many cells (of each split).
def preparedContent(json) {
    def summary = new groovy.json.JsonSlurper().parseText(json.text)
    return [modalities: summary.modalities ? summary.modalities.keySet().sort() : ['atac', 'rna'], cells: summary.cells ?: 1]
}

// The modalities a checkpoint knows: its header is 8 bytes of length and that many of JSON, with our JSON under one key.
def checkpointModalities(checkpoint) {
    if (checkpoint.size() < 8) {
        return ['atac', 'rna'] // a stub
    }
    def header = checkpoint.withInputStream { stream ->
        def length = java.nio.ByteBuffer.wrap(stream.readNBytes(8)).order(java.nio.ByteOrder.LITTLE_ENDIAN).getLong()
        new String(stream.readNBytes(length as int), 'UTF-8')
    }
    def slurper = new groovy.json.JsonSlurper()
    return slurper.parseText(slurper.parseText(header)['__metadata__'].xmodal).modalities.keySet().sort()
}

// Row ranges for `shards` parts; '' where one part does it all.
def rowRanges(cells, shards) {
    def size = Math.max(1, Math.ceil(cells / shards / batchSize()) as int) * batchSize()
    def starts = (0..<Math.max(1, Math.ceil(cells / size) as int)).collect { part -> part * size }
    return starts.size() == 1 ? [''] : starts.collect { start -> "${start}:${Math.min(start + size, cells)}".toString() }
}

// One job for each direction and range of rows.
def predictionJobs(meta, h5mu, json, checkpoint, split, shards) {
    def content = preparedContent(json)
    def known = checkpointModalities(checkpoint)
    def ranges = rowRanges(content.cells, shards)
    def directions = content.modalities.intersect(known).collectMany { source -> (known - source).collect { target -> [source, target] } }
    return directions.collectMany { source, target ->
        def sources = content.modalities.intersect(known - target)
        def job = meta + [
            id: "${meta.id}.${source}_to_${target}".toString(),
            sample: meta.id,
            target: target,
            truth: target in content.modalities,
            // Scores are kept apart where a modality is predicted from more than one other.
            set: sources.indexOf(source),
            sets: directions.count { pair -> pair[1] in content.modalities && content.modalities.intersect(known - pair[1]).indexOf(pair[0]) == sources.indexOf(source) },
            parts: ranges.size(),
        ]
        ranges.withIndex().collect { rows, part -> [job, part, h5mu, checkpoint, source, target, split, rows] }
    }
}

workflow CROSSMODAL_PREDICT {
    take:
    ch_cells   // channel: [ val(meta), path(h5mu), path(json), path(checkpoint), val(split) ]  split: '' for all cells
    val_shards // integer: parts that each sample is predicted in

    main:
    ch_jobs = ch_cells.flatMap { meta, h5mu, json, checkpoint, split -> predictionJobs(meta, h5mu, json, checkpoint, split, val_shards) }

    XMODAL_PREDICT(ch_jobs.map { job, part, h5mu, checkpoint, source, target, split, rows ->
        [job + [id: job.parts == 1 ? job.id : "${job.id}.${part + 1}".toString(), part: part], h5mu, checkpoint, source, target, split, rows]
    })
    ch_predicted = XMODAL_PREDICT.out.h5ad.branch { meta, _h5ad ->
        whole: meta.parts == 1
        parts: true
    }

    XMODAL_MERGE(
        ch_predicted.parts
            .map { meta, h5ad -> [groupKey(meta - meta.subMap('part') + [id: meta.id.replaceAll(/\.\d+$/, '')], meta.parts), [meta.part, h5ad]] }
            .groupTuple()
            .map { meta, numbered -> [meta.target, numbered.sort { item -> item[0] }.collect { item -> item[1] }] }
    )
    ch_predictions = ch_predicted.whole
        .map { meta, h5ad -> [meta - meta.subMap('part'), h5ad] }
        .mix(XMODAL_MERGE.out.h5ad)

    ch_scored = ch_predictions
        .filter { meta, _h5ad -> meta.truth }
        .map { meta, h5ad -> [groupKey([meta.sample, meta.set], meta.sets), [meta.target, h5ad]] }
        .groupTuple()
        .map { key, pairs -> [key[0], key[1], pairs.sort { pair -> pair[0] }] }
        .combine(ch_cells.map { meta, h5mu, _json, checkpoint, _split -> [meta.id, h5mu, checkpoint] }, by: 0)
    XMODAL_EVALUATE(ch_scored.map { sample, set, pairs, h5mu, checkpoint ->
        [[id: set ? "${sample}.${set + 1}".toString() : sample], h5mu, pairs.collect { pair -> pair[0] }, pairs.collect { pair -> pair[1] }, checkpoint]
    })

    emit:
    predictions = ch_predictions                 // channel: [ val(meta), path(h5ad) ]
    evaluation  = XMODAL_EVALUATE.out.evaluation // channel: [ val(meta), path(folder) ]
}
