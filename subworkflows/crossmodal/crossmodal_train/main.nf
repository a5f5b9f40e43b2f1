// Join and split the cells to learn from, and train a model on them, unless one is given.

include { XMODAL_PREPARE } from '../../../modules/crossmodal/xmodal/prepare/main'
include { XMODAL_TRAIN   } from '../../../modules/crossmodal/xmodal/train/main'

workflow CROSSMODAL_TRAIN {
    take:
    ch_samples     // channel: [ val(meta), val(sheet), [ path(file), ... ], path(peaks) ]  as XMODAL_PREPARE takes them
    val_checkpoint // path: a trained model.safetensors to use in place of training, or []
    val_gene_table // path: gene positions, or []
    val_links      // path: peak-gene links, or []
    val_texts      // map: label_terms, ontology, text_model, init, paths as XMODAL_TRAIN takes them, as far as they are given

    main:
    XMODAL_PREPARE(ch_samples)
    XMODAL_TRAIN(
        XMODAL_PREPARE.out.h5mu.filter { !val_checkpoint }.map { meta, h5mu -> [meta, h5mu, [:]] },
        val_gene_table,
        val_links,
        val_texts.label_terms ?: [],
        val_texts.ontology ?: [],
        val_texts.text_model ?: [],
        val_texts.init ?: [],
    )
    ch_given = val_checkpoint ? XMODAL_PREPARE.out.h5mu.map { meta, _h5mu -> [meta, val_checkpoint] } : channel.empty()

    emit:
    cells      = XMODAL_PREPARE.out.h5mu.join(XMODAL_PREPARE.out.json) // channel: [ val(meta), path(h5mu), path(json) ]
    checkpoint = XMODAL_TRAIN.out.checkpoint.mix(ch_given)             // channel: [ val(meta), path(safetensors) ]
    training   = XMODAL_TRAIN.out.training                             // channel: [ val(meta), path(folder) ]
}
