// A thin form of its own with the inputs, outputs and options of nf-core's module `multiqc`, so that a pipeline can put that in its place.
process MULTIQC {
    tag "${meta.id}"
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container 'community.wave.seqera.io/library/multiqc:1.35--c17fb751507e9dfc'

    input:
    // configs, logo, replace_names and sample_names may be []; of several configs the later ones win
    tuple val(meta), path(multiqc_files, stageAs: '?/*'), path(multiqc_config, stageAs: '?/*'), path(multiqc_logo), path(replace_names), path(sample_names)

    output:
    tuple val(meta), path('*.html') , emit: report
    tuple val(meta), path('*_data') , emit: data
    tuple val(meta), path('*_plots'), emit: plots, optional: true
    // Not to the topic: what this reads holds the versions, so it would wait for itself.
    tuple val("${task.process}"), val('multiqc'), eval("multiqc --version | sed 's/.* //'"), emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def options = [multiqc_config ?: []].flatten().collect { config -> "--config ${config}" }
    options += task.ext.prefix ? ["--filename ${task.ext.prefix}.html"] : []
    options += multiqc_logo ? ["--cl-config 'custom_logo: \"${multiqc_logo}\"'"] : []
    options += replace_names ? ["--replace-names ${replace_names}"] : []
    options += sample_names ? ["--sample-names ${sample_names}"] : []
    def args = task.ext.args ?: ''
    """
    multiqc --force ${args} ${options.join(' ')} .
    """

    stub:
    def prefix = task.ext.prefix ?: 'multiqc_report'
    """
    mkdir ${prefix}_data
    touch ${prefix}_data/.stub ${prefix}.html
    """
}
