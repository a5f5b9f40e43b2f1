// Name the types of cells, describe them in words, or write cells that fit a text; score what can be scored.

include { XMODAL_ANNOTATE } from '../../../modules/crossmodal/xmodal/annotate/main'
include { XMODAL_DESCRIBE } from '../../../modules/crossmodal/xmodal/describe/main'
include { XMODAL_EVALUATE } from '../../../modules/crossmodal/xmodal/evaluate/main'
include { XMODAL_GENERATE } from '../../../modules/crossmodal/xmodal/generate/main'

workflow CROSSMODAL_CELL_TEXT {
    take:
    ch_cells     // channel: [ val(meta), path(h5mu), path(checkpoint), val(split), val(scored) ]  split: '' for all; scored: are the types known?
    ch_prompts   // channel: [ val(meta), path(checkpoint), path(prompts), path(truth) ]  truth: prepared cells to compare with, or []
    val_describe // boolean: also describe the cells in words?
    val_files    // map: candidates, ontology, text_model, decoder, language_model, paths as the modules take them, as far as they are given

    main:
    XMODAL_ANNOTATE(
        ch_cells.map { meta, h5mu, checkpoint, split, _scored -> [meta, h5mu, checkpoint, split] },
        val_files.candidates ?: [],
    )

    // The names stay those of XMODAL_ANNOTATE, whose output holds the chosen cells only.
    ch_checkpoints = ch_cells.map { meta, _h5mu, checkpoint, _split, _scored -> [meta, checkpoint] }
    XMODAL_DESCRIBE(
        XMODAL_ANNOTATE.out.h5ad
            .filter { val_describe }
            .join(ch_checkpoints)
            .map { meta, h5ad, checkpoint -> [meta, h5ad, checkpoint, ''] },
        val_files.decoder ?: [],
        val_files.language_model ?: [],
    )

    XMODAL_GENERATE(
        ch_prompts.map { meta, checkpoint, prompts, _truth -> [meta, checkpoint, prompts] },
        val_files.text_model ?: [],
    )

    ch_scored = ch_cells.filter { _meta, _h5mu, _checkpoint, _split, scored -> scored }
    ch_annotated = ch_scored
        .join(XMODAL_ANNOTATE.out.h5ad)
        .map { meta, h5mu, checkpoint, _split, _scored, h5ad -> [meta + [kind: 'annotation'], h5mu, [], [], checkpoint, [], h5ad, [], []] }
    ch_described = ch_scored
        .join(XMODAL_DESCRIBE.out.json)
        .map { meta, h5mu, checkpoint, _split, _scored, json ->
            [meta + [id: "${meta.id}.description".toString(), kind: 'description'], h5mu, [], [], checkpoint, [], [], json, []]
        }
    ch_generated = ch_prompts
        .filter { _meta, _checkpoint, _prompts, truth -> truth }
        .join(XMODAL_GENERATE.out.h5ad)
        .map { meta, checkpoint, _prompts, truth, h5ad -> [meta + [kind: 'generated'], truth, [], [], checkpoint, [], [], [], h5ad] }
    XMODAL_EVALUATE(ch_annotated.mix(ch_described, ch_generated), val_files.ontology ?: [])

    emit:
    annotated    = XMODAL_ANNOTATE.out.h5ad         // channel: [ val(meta), path(h5ad) ]
    annotation   = XMODAL_ANNOTATE.out.annotation   // channel: [ val(meta), path(folder) ]
    descriptions = XMODAL_DESCRIBE.out.descriptions // channel: [ val(meta), path(folder) ]
    generated    = XMODAL_GENERATE.out.h5ad         // channel: [ val(meta), path(h5ad) ]
    overview     = XMODAL_GENERATE.out.overview     // channel: [ val(meta), path(folder) ]
    evaluation   = XMODAL_EVALUATE.out.evaluation   // channel: [ val(meta), path(folder) ]
}
