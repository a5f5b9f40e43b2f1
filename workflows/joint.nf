// --task joint: one embedding of all cells, whichever modalities they have; new cells are mapped into it by the model.

include { CROSSMODAL_JOINT_EMBED } from '../subworkflows/crossmodal/crossmodal_joint_embed/main'
include { CROSSMODAL_TRAIN       } from '../subworkflows/crossmodal/crossmodal_train/main'
include { NEW_SAMPLES            } from '../subworkflows/local/new_samples/main'
include { resultsOf              } from '../subworkflows/local/utils_xmodal/channels'
include { trainingSheet          } from '../subworkflows/local/utils_xmodal/channels'

workflow JOINT {
    take:
    ch_samples     // channel: [ val(meta), val(files) ]  meta: id, role, line, groups; files: a map of column to path
    val_checkpoint // path: a trained model, or []
    val_gene_table // path: gene positions, or []
    val_links      // path: peak-gene links, or []
    val_peaks      // path: what fragments to learn from are counted over, or []

    main:
    CROSSMODAL_TRAIN(trainingSheet(ch_samples, val_peaks ?: val_checkpoint), val_checkpoint, val_gene_table, val_links, [:])
    NEW_SAMPLES(ch_samples, val_checkpoint ? channel.value(val_checkpoint) : CROSSMODAL_TRAIN.out.checkpoint.map { _meta, checkpoint -> checkpoint })

    // Cells to learn from are embedded all together, test cells too; which columns new cells have is not said beforehand.
    ch_joint = CROSSMODAL_TRAIN.out.cells
        .join(CROSSMODAL_TRAIN.out.checkpoint)
        .map { _meta, h5mu, _json, checkpoint -> [[id: 'joint'], h5mu, checkpoint, ''] }
    ch_mapped = NEW_SAMPLES.out.cells
        .join(ch_samples.map { meta, _files -> [meta.subMap('id'), meta.groups] })
        .map { meta, h5mu, _json, checkpoint, groups -> [meta + [groups: groups], h5mu, checkpoint, ''] }
    CROSSMODAL_JOINT_EMBED(ch_joint.mix(ch_mapped))

    emit:
    results = resultsOf('training', CROSSMODAL_TRAIN.out.training)
        .mix(resultsOf('evaluation', CROSSMODAL_JOINT_EMBED.out.evaluation))
        .mix(resultsOf('prepare', CROSSMODAL_TRAIN.out.cells.map { meta, _h5mu, json -> [meta, json] }.mix(NEW_SAMPLES.out.json)))
        .mix(resultsOf('embedding', CROSSMODAL_JOINT_EMBED.out.embedding))
        .mix(resultsOf('markers', CROSSMODAL_JOINT_EMBED.out.markers)) // channel: [ val(kind), val(name), path ]  for the report
}
