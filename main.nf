#!/usr/bin/env nextflow
// Predict the single-cell modality that was not measured: check -> prepare -> train -> predict -> evaluate -> report;
// or (--task joint) one embedding of all cells: check -> prepare -> train -> embed -> impute -> markers -> evaluate -> report;
// or (--task annotate, describe, generate) what cells are called, in words, or cells from words.

nextflow.preview.topic = true

include { PIPELINE_COMPLETION     } from './subworkflows/local/utils_xmodal/main'
include { PIPELINE_INITIALISATION } from './subworkflows/local/utils_xmodal/main'
include { helpText                } from './subworkflows/local/utils_xmodal/main'
include { sweepTrials             } from './subworkflows/local/utils_xmodal_sweep/main'
include { XMODAL                  } from './workflows/xmodal'

workflow {
    main:
    if (params.help) {
        println(helpText("${projectDir}/nextflow_schema.json"))
    }
    else if (params.version) {
        println("crossmodal/xmodal ${workflow.manifest.version}")
    }
    else {
        PIPELINE_INITIALISATION(
            params,
            "${projectDir}/nextflow_schema.json",
            "${projectDir}/assets/schema_input.json",
            "${projectDir}/assets/schema_trials.json",
        )
        XMODAL(
            PIPELINE_INITIALISATION.out.samples,
            params.checkpoint ? file(params.checkpoint, checkIfExists: true) : [],
            params.gene_table ? file(params.gene_table, checkIfExists: true) : [],
            params.links ? file(params.links, checkIfExists: true) : [],
            [
                task: params.task,
                outdir: params.outdir,
                columns: params.subMap(['label_key', 'batch_key', 'sample_key']),
                trials: sweepTrials(params, "${projectDir}/assets/schema_trials.json"),
                shards: params.shards,
                peaks: params.peaks ? file(params.peaks, checkIfExists: true) : [],
                candidates: params.candidates && params.candidates ==~ /.*\.(txt|tsv)/ ? file(params.candidates, checkIfExists: true) : [],
                prompts: params.prompts ? file(params.prompts, checkIfExists: true) : [],
                texts: params.subMap(['label_terms', 'ontology', 'text_model', 'init', 'decoder', 'language_model']).collectEntries { name, path -> [name, path ? file(path, checkIfExists: true) : []] },
                skip_multiqc: params.skip_multiqc,
                multiqc_configs: [file("${projectDir}/assets/multiqc_config.yml", checkIfExists: true)] + (params.multiqc_config ? [file(params.multiqc_config, checkIfExists: true)] : []),
            ],
        )
        channel.of(groovy.json.JsonOutput.prettyPrint(groovy.json.JsonOutput.toJson(params.sort())))
            .collectFile(name: 'params.json', storeDir: "${params.outdir}/pipeline_info", newLine: true)
        PIPELINE_COMPLETION(params.outdir, XMODAL.out.report)
    }
}
