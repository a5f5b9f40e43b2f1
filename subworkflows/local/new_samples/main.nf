// Samples that a model is used on are prepared one at a time, and nothing is filtered away; each comes with its model.

include { XMODAL_PREPARE as XMODAL_PREPARE_NEW } from '../../../modules/crossmodal/xmodal/prepare/main'
include { peaksFor                             } from '../utils_xmodal/channels'
include { sheetOf                              } from '../utils_xmodal/channels'

workflow NEW_SAMPLES {
    take:
    ch_samples // channel: [ val(meta), val(files) ]  meta: id, role, line; files: a map of column to path
    ch_default // channel: path(checkpoint)  the model of rows that name none

    main:
    ch_new = ch_samples.filter { meta, _files -> meta.role != 'train' }
    // Fragments are counted over the peaks of the model, so some wait for the training.
    ch_sheets = ch_new.branch { _meta, files ->
        waiting: files.fragments && !files.checkpoint
        ready: true
    }
    ch_ready = ch_sheets.ready.map { row -> [row[0].subMap('id')] + sheetOf([row]) + [peaksFor([row], row[1].checkpoint)] }
    ch_waiting = ch_sheets.waiting
        .map { row -> [row[0].subMap('id')] + sheetOf([row]) }
        .combine(ch_default)
    XMODAL_PREPARE_NEW(ch_ready.mix(ch_waiting))

    ch_own_checkpoint = ch_new
        .filter { _meta, files -> files.checkpoint }
        .map { meta, files -> [meta.subMap('id'), files.checkpoint] }
    ch_prepared = XMODAL_PREPARE_NEW.out.h5mu
        .join(XMODAL_PREPARE_NEW.out.json)
        .join(ch_own_checkpoint, remainder: true)
        .filter { row -> row[1] }
        .branch { _meta, _h5mu, _json, checkpoint ->
            own: checkpoint
            shared: true
        }

    emit:
    cells = ch_prepared.own.mix(ch_prepared.shared.map { row -> row.take(3) }.combine(ch_default)) // channel: [ val(meta), path(h5mu), path(json), path(checkpoint) ]
    json  = XMODAL_PREPARE_NEW.out.json                                                           // channel: [ val(meta), path(json) ]
}
