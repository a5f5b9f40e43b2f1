process MULTIQC {
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container 'community.wave.seqera.io/library/multiqc:1.32--d58f60e4deb769bf'

    input:
    path files, stageAs: 'sections?/*'
    path configs, stageAs: 'config?/*'
    path versions, stageAs: 'software_mqc_versions.yml'

    output:
    path 'multiqc_report.html', emit: report
    path 'multiqc_report_data', emit: data
    // Not to the topic: what this reads holds the versions, so it would wait for itself.
    tuple val("${task.process}"), val('multiqc'), eval("multiqc --version | sed 's/.* //'"), emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def options = [configs].flatten().collect { "--config ${it}" }.join(' ')
    """
    multiqc \\
        --force \\
        --filename multiqc_report.html \\
        ${options} \\
        ${args} \\
        .
    """

    stub:
    """
    mkdir multiqc_report_data
    touch multiqc_report_data/.stub multiqc_report.html
    """
}
