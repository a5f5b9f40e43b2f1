// --task predict: learn from the rows to train on, predict what cells lack, score where the truth was measured.

include { CROSSMODAL_PREDICT } from '../subworkflows/crossmodal/crossmodal_predict/main'
include { CROSSMODAL_SWEEP   } from '../subworkflows/crossmodal/crossmodal_sweep/main'
include { CROSSMODAL_TRAIN   } from '../subworkflows/crossmodal/crossmodal_train/main'
include { NEW_SAMPLES        } from '../subworkflows/local/new_samples/main'
include { resultsOf          } from '../subworkflows/local/utils_xmodal/channels'
include { trainingSheet      } from '../subworkflows/local/utils_xmodal/channels'

workflow PREDICT {
    take:
    ch_samples     // channel: [ val(meta), val(files) ]  meta: id, role, line; files: a map of column to path
    val_checkpoint // path: a trained model, or []
    val_gene_table // path: gene positions, or []
    val_links      // path: peak-gene links, or []
    val_options    // map: trials (of a sweep, or []), shards, peaks (path or [])

    main:
    ch_training = trainingSheet(ch_samples, val_options.peaks ?: val_checkpoint)
    if (val_options.trials) {
        CROSSMODAL_SWEEP(ch_training, val_options.trials, val_gene_table, val_links)
        ch_trained = CROSSMODAL_SWEEP.out
        ch_selections = CROSSMODAL_SWEEP.out.selection
    }
    else {
        CROSSMODAL_TRAIN(ch_training, val_checkpoint, val_gene_table, val_links, [:])
        ch_trained = CROSSMODAL_TRAIN.out
        ch_selections = channel.empty()
    }
    NEW_SAMPLES(ch_samples, val_checkpoint ? channel.value(val_checkpoint) : ch_trained.checkpoint.map { _meta, checkpoint -> checkpoint })

    ch_heldout = ch_trained.cells
        .join(ch_trained.checkpoint)
        .map { _meta, h5mu, json, checkpoint -> [[id: 'heldout'], h5mu, json, checkpoint, 'test'] }
    CROSSMODAL_PREDICT(ch_heldout.mix(NEW_SAMPLES.out.cells.map { row -> row + [''] }), val_options.shards)

    ch_predictions = CROSSMODAL_PREDICT.out.summaries
        .map { meta, json -> ['prediction', (meta.source ? "${meta.sample}: ${meta.target} from ${meta.source}" : "${meta.sample}: ${meta.target}").toString(), json] }

    emit:
    results = resultsOf('training', ch_trained.training)
        .mix(resultsOf('evaluation', CROSSMODAL_PREDICT.out.evaluation))
        .mix(resultsOf('prepare', ch_trained.cells.map { meta, _h5mu, json -> [meta, json] }.mix(NEW_SAMPLES.out.json)))
        .mix(resultsOf('selection', ch_selections))
        .mix(ch_predictions) // channel: [ val(kind), val(name), path ]  for the report
}
