// The pipeline's one workflow: look at the files, do the task, write the report.

include { CELL_TEXT     } from './cell_text'
include { JOINT         } from './joint'
include { MULTIQC       } from '../modules/local/multiqc/main'
include { PREDICT       } from './predict'
include { XMODAL_CHECK  } from '../modules/crossmodal/xmodal/check/main'
include { XMODAL_REPORT } from '../modules/crossmodal/xmodal/report/main'
include { groupsIn      } from '../subworkflows/local/utils_xmodal/channels'
include { reportOf      } from '../subworkflows/local/utils_xmodal/channels'
include { resultsOf     } from '../subworkflows/local/utils_xmodal/channels'
include { unusedColumns } from '../subworkflows/local/utils_xmodal/channels'
include { versionsText  } from '../subworkflows/local/utils_xmodal/main'

workflow XMODAL {
    take:
    ch_samples     // channel: [ val(meta), val(files) ]  meta: id, role, line; files: a map of column to path
    val_checkpoint // path: a trained model, or []
    val_gene_table // path: gene positions, or []
    val_links      // path: peak-gene links, or []
    val_options    // map: task, outdir, columns (by parameter), trials (of a sweep, or []), shards, peaks (path or []), texts (map: label_terms, ontology, text_model, init, decoder, language_model, paths), candidates, prompts (path or []), skip_multiqc, multiqc_configs (paths, the later ones win)

    main:
    // Every file is looked at first; what is refused there costs no training.
    XMODAL_CHECK(ch_samples.map { meta, files ->
        def cells = files - files.subMap('checkpoint')
        def model = meta.role == 'predict' ? val_checkpoint : []
        [meta, cells.keySet().toList(), cells.values().toList(), files.checkpoint ?: model]
    })
    ch_checked = XMODAL_CHECK.out.json
        .join(ch_samples)
        .map { meta, json, files -> [meta + [groups: groupsIn(json)], files] }

    if (val_options.task == 'joint') {
        if (!workflow.stubRun) {
            ch_checked.map { meta, _files -> meta.groups }.toList().subscribe { groups -> unusedColumns(groups, val_options.columns).each { text -> log.warn(text) } }
        }
        JOINT(ch_checked, val_checkpoint, val_gene_table, val_links, val_options.peaks)
        ch_results = JOINT.out.results
    }
    else if (val_options.task in ['annotate', 'describe', 'generate']) {
        CELL_TEXT(ch_checked, val_checkpoint, val_options.subMap(['task', 'peaks', 'texts', 'candidates', 'prompts']) + [label_key: val_options.columns.label_key])
        ch_results = CELL_TEXT.out.results
    }
    else {
        PREDICT(ch_checked, val_checkpoint, val_gene_table, val_links, val_options.subMap(['trials', 'shards', 'peaks']))
        ch_results = PREDICT.out.results
    }

    // One report over everything; what there is none of is left out. Cells from a text by a given model alone have none.
    XMODAL_REPORT(resultsOf('check', XMODAL_CHECK.out.json).mix(ch_results).toList().filter { rows -> rows }.map { rows -> reportOf(rows) })

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
