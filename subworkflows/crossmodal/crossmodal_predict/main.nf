// Predict in every direction the checkpoint knows, in shards; merge; score where the truth was measured. Where the checkpoint
// tells a column of obs, tell it too.

include { XMODAL_EVALUATE } from '../../../modules/crossmodal/xmodal/evaluate/main'
include { XMODAL_MERGE    } from '../../../modules/crossmodal/xmodal/merge/main'
include { XMODAL_PREDICT  } from '../../../modules/crossmodal/xmodal/predict/main'

// The modalities that a prepared file has cells of.
def measuredModalities(json) {
    def summary = new groovy.json.JsonSlurper().parseText(json.text)
    return summary.modalities ? summary.modalities.keySet().sort() : ['atac', 'rna']
}

// What a checkpoint says of itself. A safetensors file begins with 8 bytes of length and that many bytes of JSON, in which our
// own JSON stands under one key.
def checkpointHeader(checkpoint) {
    if (checkpoint.size() < 8) {
        return [directions: [['atac', 'rna'], ['rna', 'atac']]] // of a stub run
    }
    def header = checkpoint.withInputStream { stream ->
        def length = java.nio.ByteBuffer.wrap(stream.readNBytes(8)).order(java.nio.ByteOrder.LITTLE_ENDIAN).getLong()
        new String(stream.readNBytes(length as int), 'UTF-8')
    }
    def slurper = new groovy.json.JsonSlurper()
    return slurper.parseText(slurper.parseText(header)['__metadata__'].xmodal)
}

// A column of obs is told of whole cells from all that they have, in one piece, and scored in a set of its own: only of the
// cells that were held out is it known.
def columnJobs(meta, h5mu, checkpoint, split, column) {
    if (!column) {
        return []
    }
    def job = meta + [id: "${meta.id}.${column}".toString(), sample: meta.id, source: '', target: column, truth: split == 'test', set: column, in_set: 1]
    return [[job, 0, h5mu, checkpoint, '', column, split, '']]
}

// One job for each direction and shard. Where a modality is predicted from more than one other, each of these predictions
// is scored in a set of its own.
def predictionJobs(meta, h5mu, json, checkpoint, split, shards) {
    def measured = measuredModalities(json)
    def header = checkpointHeader(checkpoint)
    def directions = header.directions.sort { pair -> pair.join(' ') }.findAll { source, _target -> source in measured }
    def numbered = directions.collect { source, target ->
        [source, target, directions.findAll { pair -> pair[1] == target }.collect { pair -> pair[0] }.indexOf(source)]
    }
    def column = header.vocabulary?.target?.key
    return columnJobs(meta, h5mu, checkpoint, split, column) + numbered.collectMany { source, target, set ->
        def job = meta + [
            id: "${meta.id}.${source}_to_${target}".toString(),
            sample: meta.id,
            source: source,
            target: target,
            truth: target in measured,
            set: set,
            in_set: numbered.count { item -> item[1] in measured && item[2] == set },
        ]
        (1..shards).collect { part -> [job, part, h5mu, checkpoint, source, target, split, shards == 1 ? '' : "${part}/${shards}".toString()] }
    }
}

workflow CROSSMODAL_PREDICT {
    take:
    ch_cells   // channel: [ val(meta), path(h5mu), path(json), path(checkpoint), val(split) ]  split: '' for all cells
    val_shards // integer: parts that each sample is predicted in

    main:
    ch_jobs = ch_cells.flatMap { meta, h5mu, json, checkpoint, split -> predictionJobs(meta, h5mu, json, checkpoint, split, val_shards) }

    XMODAL_PREDICT(ch_jobs.map { job, part, h5mu, checkpoint, source, target, split, shard ->
        [job + [part: part], h5mu, checkpoint, source, target, split, shard]
    })

    XMODAL_MERGE(
        XMODAL_PREDICT.out.h5ad
            .filter { meta, _h5ad -> meta.part > 0 && val_shards > 1 }
            .map { meta, h5ad -> [groupKey(meta - meta.subMap('part'), val_shards), [meta.part, h5ad]] }
            .groupTuple()
            .map { meta, parts -> [meta.target, parts.sort { part -> part[0] }.collect { part -> part[1] }] }
    )
    ch_whole = XMODAL_PREDICT.out.h5ad
        .filter { meta, _h5ad -> meta.part == 0 || val_shards == 1 }
        .map { meta, h5ad -> [meta - meta.subMap('part'), h5ad] }
    ch_predictions = ch_whole.mix(XMODAL_MERGE.out.h5ad)

    ch_summaries = XMODAL_PREDICT.out.json
        .filter { meta, _json -> meta.part == 0 || val_shards == 1 }
        .map { meta, json -> [meta - meta.subMap('part'), json] }
        .mix(XMODAL_MERGE.out.json)

    ch_scored = ch_predictions
        .filter { meta, _h5ad -> meta.truth }
        .map { meta, h5ad -> [groupKey([meta.sample, meta.set], meta.in_set), [meta.target, h5ad]] }
        .groupTuple()
        .map { key, pairs -> [key[0], key[1], pairs.sort { pair -> pair[0] }] }
        .combine(ch_cells.map { meta, h5mu, _json, checkpoint, _split -> [meta.id, h5mu, checkpoint] }, by: 0)
    XMODAL_EVALUATE(
        ch_scored.map { sample, set, pairs, h5mu, checkpoint ->
            [[id: set instanceof Number ? (set ? "${sample}.${set + 1}".toString() : sample) : "${sample}.${set}".toString(), sample: sample], h5mu, pairs.collect { pair -> pair[0] }, pairs.collect { pair -> pair[1] }, checkpoint, [], [], [], []]
        },
        [],
    )

    emit:
    predictions = ch_predictions                 // channel: [ val(meta), path(h5ad) ]
    summaries   = ch_summaries                   // channel: [ val(meta), path(json) ]
    evaluation  = XMODAL_EVALUATE.out.evaluation // channel: [ val(meta), path(folder) ]
}
