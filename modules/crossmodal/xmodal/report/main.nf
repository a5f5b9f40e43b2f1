process XMODAL_REPORT {
    tag "${meta.id}"
    label 'process_low'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/crossmodal/xmodal:0.1.0"

    input:
    // each folder or file may be left out as []; names: what the report calls each of `predictions`, in the same order
    tuple val(meta), path(training, stageAs: 'training/*'), path(evaluation, stageAs: 'evaluation/*'), path(checks, stageAs: 'check/*'), path(prepared, stageAs: 'prepare/*'), val(names), path(predictions, stageAs: 'prediction?/*'), path(selection, stageAs: 'selection/*'), path(embeddings, stageAs: 'embedding/*'), path(markers, stageAs: 'markers/*'), path(annotations, stageAs: 'annotation/*'), path(descriptions, stageAs: 'description/*'), path(generated, stageAs: 'generated/*')

    output:
    tuple val(meta), path("${prefix}/index.html")   , emit: html
    tuple val(meta), path("${prefix}/multiqc/*_mqc*"), emit: mqc, optional: true
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def given = ['--training': training, '--evaluation': evaluation, '--check': checks, '--prepare': prepared, '--selection': selection, '--embedding': embeddings, '--markers': markers, '--annotation': annotations, '--description': descriptions, '--generated': generated]
    def parts = given.collectMany { option, files -> [files].flatten().collect { file -> "${option} ${file}" } }.join(' ')
    def predicted = [names, [predictions].flatten()].transpose().collect { name, file -> "--prediction '${name}=${file}'" }.join(' ')
    """
    xmodal report \\
        ${args} \\
        --overwrite \\
        ${parts} \\
        ${predicted} \\
        --threads ${task.cpus} \\
        --device cpu \\
        --multiqc-dir ${prefix}/multiqc \\
        --output ${prefix}/index.html
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p ${prefix}/multiqc
    touch ${prefix}/index.html ${prefix}/multiqc/xmodal_mqc.json
    """
}
