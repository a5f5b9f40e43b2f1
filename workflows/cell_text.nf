// --task annotate, describe, generate: learn from labelled cells and from what is said of their types; name and describe the
// types of other cells, or write cells that fit a text.

include { CROSSMODAL_CELL_TEXT } from '../subworkflows/crossmodal/crossmodal_cell_text/main'
include { CROSSMODAL_TRAIN     } from '../subworkflows/crossmodal/crossmodal_train/main'
include { NEW_SAMPLES          } from '../subworkflows/local/new_samples/main'
include { resultsOf            } from '../subworkflows/local/utils_xmodal/channels'
include { trainingSheet        } from '../subworkflows/local/utils_xmodal/channels'

workflow CELL_TEXT {
    take:
    ch_samples     // channel: [ val(meta), val(files) ]  meta: id, role, line, groups; files: a map of column to path
    val_checkpoint // path: a trained model, or []
    val_options    // map: task, label_key, peaks (path or []), candidates (path or []), prompts (path or []), texts (map of paths)

    main:
    def generates = val_options.task == 'generate'
    CROSSMODAL_TRAIN(trainingSheet(ch_samples, val_options.peaks ?: val_checkpoint), val_checkpoint, [], [], val_options.texts)
    ch_model = val_checkpoint ? channel.value(val_checkpoint) : CROSSMODAL_TRAIN.out.checkpoint.map { _meta, checkpoint -> checkpoint }.first()
    NEW_SAMPLES(ch_samples.filter { !generates }, ch_model)

    // Of cells to learn from those that were held out are annotated: their labels are known, and the model has not seen them.
    // A given model need not know the labels of these cells, unless the column is named.
    ch_heldout = CROSSMODAL_TRAIN.out.cells
        .filter { !generates }
        .join(CROSSMODAL_TRAIN.out.checkpoint)
        .map { _meta, h5mu, _json, checkpoint -> [[id: 'heldout'], h5mu, checkpoint, 'test', !val_checkpoint || val_options.label_key != null] }
    ch_new = NEW_SAMPLES.out.cells
        .join(ch_samples.map { meta, _files -> [meta.subMap('id'), meta.groups] })
        .map { meta, h5mu, _json, checkpoint, groups -> [meta, h5mu, checkpoint, '', val_options.label_key != null && val_options.label_key in groups] }

    // What is generated is compared with the cells to learn from, where there are any.
    ch_truth = CROSSMODAL_TRAIN.out.cells.map { _meta, h5mu, _json -> h5mu }.ifEmpty([])
    ch_prompts = ch_model
        .filter { generates }
        .combine(ch_truth.map { truth -> [truth] })
        .map { checkpoint, truth -> [[id: 'prompts'], checkpoint, val_options.prompts, truth] }

    CROSSMODAL_CELL_TEXT(
        ch_heldout.mix(ch_new),
        ch_prompts,
        val_options.task == 'describe',
        val_options.texts + [candidates: val_options.candidates],
    )

    emit:
    results = resultsOf('training', CROSSMODAL_TRAIN.out.training)
        .mix(resultsOf('evaluation', CROSSMODAL_CELL_TEXT.out.evaluation))
        .mix(resultsOf('prepare', CROSSMODAL_TRAIN.out.cells.map { meta, _h5mu, json -> [meta, json] }.mix(NEW_SAMPLES.out.json)))
        .mix(resultsOf('annotation', CROSSMODAL_CELL_TEXT.out.annotation))
        .mix(resultsOf('description', CROSSMODAL_CELL_TEXT.out.descriptions))
        .mix(resultsOf('generated', CROSSMODAL_CELL_TEXT.out.overview)) // channel: [ val(kind), val(name), path ]  for the report
}
