// The pipeline's one workflow: wiring only.

include { CROSSMODAL_PREDICT                    } from '../subworkflows/crossmodal/crossmodal_predict/main'
include { CROSSMODAL_SWEEP                      } from '../subworkflows/crossmodal/crossmodal_sweep/main'
include { CROSSMODAL_TRAIN                      } from '../subworkflows/crossmodal/crossmodal_train/main'
include { MULTIQC                               } from '../modules/local/multiqc/main'
include { XMODAL_CHECK                          } from '../modules/crossmodal/xmodal/check/main'
include { XMODAL_PREPARE as XMODAL_PREPARE_NEW  } from '../modules/crossmodal/xmodal/prepare/main'
include { XMODAL_REPORT                         } from '../modules/crossmodal/xmodal/report/main'
include { versionsText                          } from '../subworkflows/local/utils_xmodal/main'
include { sheetOf                               } from '../subworkflows/local/utils_xmodal/main'

// All files of a channel as one list, sorted by name; wrapped, so that combine leaves it whole.
def allOf(files) {
    return files.toSortedList { a, b -> a.name <=> b.name }.map { list -> [list] }
}

// What the fragments of these rows are counted over; [] where there are none.
def peaksFor(rows, peaks) {
    return rows.any { _meta, files -> files.fragments } ? peaks : []
}

workflow XMODAL {
    take:
    ch_samples       // channel: [ val(meta), val(files) ]  meta: id, role, line; files: a map of column to path
    val_checkpoint   // path: a trained model, or []
    val_gene_table   // path: gene positions, or []
    val_links        // path: peak-gene links, or []
    val_options      // map: outdir, trials (of a sweep, or []), shards, peaks (path or []), skip_multiqc, multiqc_configs (paths, the later ones win)

    main:
    // Every file is looked at first; what is refused there costs no training.
    XMODAL_CHECK(ch_samples.map { meta, files ->
        def cells = files - files.subMap('checkpoint')
        def model = meta.role == 'predict' ? val_checkpoint : []
        [meta, cells.keySet().toList(), cells.values().toList(), files.checkpoint ?: model]
    })
    ch_checked = XMODAL_CHECK.out.json
        .join(ch_samples)
        .map { meta, _json, files -> [meta, files] }

    // All cells to learn from become one file, in the order of the samplesheet.
    ch_training = ch_checked
        .filter { meta, _files -> meta.role != 'predict' }
        .toSortedList { a, b -> a[0].line <=> b[0].line }
        .filter { rows -> rows }
        .map { rows -> [[id: 'training']] + sheetOf(rows) + [peaksFor(rows, val_options.peaks ?: val_checkpoint)] }
    if (val_options.trials) {
        CROSSMODAL_SWEEP(ch_training, val_options.trials, val_gene_table, val_links)
        ch_trained = CROSSMODAL_SWEEP.out
        ch_selections = CROSSMODAL_SWEEP.out.selection.map { _meta, folder -> folder }
    }
    else {
        CROSSMODAL_TRAIN(ch_training, val_checkpoint, val_gene_table, val_links)
        ch_trained = CROSSMODAL_TRAIN.out
        ch_selections = channel.empty()
    }

    // Cells to predict for are prepared one sample at a time, and nothing is filtered away.
    ch_new = ch_checked.filter { meta, _files -> meta.role != 'train' }
    // Their fragments are counted over the peaks of the model that predicts, so some wait for the training.
    ch_default = val_checkpoint ? channel.value(val_checkpoint) : ch_trained.checkpoint.map { _meta, checkpoint -> checkpoint }
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

    ch_heldout = ch_trained.cells
        .join(ch_trained.checkpoint)
        .map { _meta, h5mu, json, checkpoint -> [[id: 'heldout'], h5mu, json, checkpoint, 'test'] }
    ch_prepared_new = XMODAL_PREPARE_NEW.out.h5mu
        .join(XMODAL_PREPARE_NEW.out.json)
        .join(ch_own_checkpoint, remainder: true)
        .filter { row -> row[1] }
        .branch { _meta, _h5mu, _json, checkpoint ->
            own: checkpoint
            shared: true
        }
    ch_predict = ch_heldout
        .mix(ch_prepared_new.own.map { meta, h5mu, json, checkpoint -> [meta, h5mu, json, checkpoint, ''] })
        .mix(ch_prepared_new.shared.map { row -> row.take(3) }.combine(ch_default).map { row -> row + [''] })
    CROSSMODAL_PREDICT(ch_predict, val_options.shards)

    // One report over everything; what there is none of is left out.
    ch_trainings = ch_trained.training.map { _meta, folder -> folder }
    ch_evaluations = CROSSMODAL_PREDICT.out.evaluation.map { _meta, folder -> folder }
    ch_checks = XMODAL_CHECK.out.json.map { _meta, json -> json }
    ch_summaries = ch_trained.cells
        .map { _meta, _h5mu, json -> json }
        .mix(XMODAL_PREPARE_NEW.out.json.map { _meta, json -> json })
    ch_predictions = CROSSMODAL_PREDICT.out.summaries
        .map { meta, json -> ["${meta.sample}: ${meta.target} from ${meta.source}".toString(), json] }
        .toSortedList { a, b -> a[0] <=> b[0] }
        .map { rows -> [rows.collect { row -> row[0] }, rows.collect { row -> row[1] }] }
    ch_report = allOf(ch_trainings)
        .combine(allOf(ch_evaluations))
        .combine(allOf(ch_checks))
        .combine(allOf(ch_summaries))
        .combine(ch_predictions)
        .combine(allOf(ch_selections))
        .map { parts -> [[id: 'report']] + parts }
    XMODAL_REPORT(ch_report)

    ch_versions = channel.topic('versions')
        .unique()
        .toSortedList { a, b -> a.join() <=> b.join() }
        .map { rows -> versionsText(rows) }
        .collectFile(name: 'xmodal_software_mqc_versions.yml', storeDir: "${val_options.outdir}/pipeline_info")

    if (!val_options.skip_multiqc) {
        ch_multiqc = XMODAL_REPORT.out.mqc
            .combine(ch_versions)
            .map { parts -> [[id: 'xmodal'], parts.tail().flatten(), val_options.multiqc_configs, [], [], []] }
        MULTIQC(ch_multiqc)
    }
    else {
        log.info('MultiQC is left out (--skip_multiqc).')
    }

    emit:
    report   = XMODAL_REPORT.out.html // channel: [ val(meta), path(html) ]
    versions = ch_versions            // channel: [ path(yml) ]
}
