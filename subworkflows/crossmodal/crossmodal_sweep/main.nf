// As CROSSMODAL_TRAIN, with the best of several trials: each learns from the training cells alone and is judged on the
// validation cells; the best is then trained again on both. Test cells play no part.

include { CROSSMODAL_PREDICT                 } from '../crossmodal_predict/main'
include { XMODAL_PREPARE                     } from '../../../modules/crossmodal/xmodal/prepare/main'
include { XMODAL_SELECT                      } from '../../../modules/crossmodal/xmodal/select/main'
include { XMODAL_TRAIN                       } from '../../../modules/crossmodal/xmodal/train/main'
include { XMODAL_TRAIN as XMODAL_TRAIN_TRIAL } from '../../../modules/crossmodal/xmodal/train/main'

// Folders of a channel as one list, sorted by name; wrapped, so that combine leaves it whole.
def foldersOf(channel) {
    return channel.map { _meta, folder -> folder }.toSortedList { a, b -> a.name <=> b.name }.map { list -> [list] }
}

// What XMODAL_TRAIN trains the best trial again with.
def bestTrial(json) {
    def best = new groovy.json.JsonSlurper().parseText(json.text).best
    return [name: best.name, model: best.model, settings: best.settings.collect { pair -> pair.toString() }, seed: best.seed]
}

workflow CROSSMODAL_SWEEP {
    take:
    ch_samples     // channel: [ val(meta), val(sheet), [ path(file), ... ], path(peaks) ]  as XMODAL_PREPARE takes them; one item
    val_trials     // list of maps: name, model, settings (a list of NAME=VALUE), seed
    val_gene_table // path: gene positions, or []
    val_links      // path: peak-gene links, or []

    main:
    XMODAL_PREPARE(ch_samples)
    ch_cells = XMODAL_PREPARE.out.h5mu.join(XMODAL_PREPARE.out.json)

    XMODAL_TRAIN_TRIAL(
        XMODAL_PREPARE.out.h5mu
            .combine(channel.fromList(val_trials))
            .map { _meta, h5mu, trial -> [[id: trial.name], h5mu, trial + [held_out: true]] },
        val_gene_table,
        val_links,
        [],
        [],
        [],
        [],
    )
    CROSSMODAL_PREDICT(
        XMODAL_TRAIN_TRIAL.out.checkpoint
            .combine(ch_cells)
            .map { meta, checkpoint, _cells, h5mu, json -> [meta, h5mu, json, checkpoint, 'valid'] },
        1,
    )
    XMODAL_SELECT(
        XMODAL_PREPARE.out.h5mu
            .map { _meta, _h5mu -> [[id: 'sweep']] }
            .combine(foldersOf(XMODAL_TRAIN_TRIAL.out.training))
            .combine(foldersOf(CROSSMODAL_PREDICT.out.evaluation))
            .map { meta, trainings, evaluations -> [meta, trainings, evaluations, val_trials.collect { trial -> trial.name }] }
    )

    ch_best = XMODAL_SELECT.out.json.map { _meta, json -> bestTrial(json) }
    XMODAL_TRAIN(
        XMODAL_PREPARE.out.h5mu
            .combine(ch_best)
            .map { _meta, h5mu, best -> [[id: best.name], h5mu, best] },
        val_gene_table,
        val_links,
        [],
        [],
        [],
        [],
    )
    ch_meta = ch_cells.map { meta, _h5mu, _json -> meta }

    emit:
    cells      = ch_cells                                                                                 // channel: [ val(meta), path(h5mu), path(json) ]
    checkpoint = ch_meta.combine(XMODAL_TRAIN.out.checkpoint.map { _meta, checkpoint -> checkpoint })      // channel: [ val(meta), path(safetensors) ]
    training   = ch_meta.combine(XMODAL_TRAIN.out.training.map { _meta, folder -> folder })                // channel: [ val(meta), path(folder) ]
    selection  = XMODAL_SELECT.out.selection                                                              // channel: [ val(meta), path(folder) ]
}
