process XMODAL_CHECK {
    tag "${meta.id}"
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/crossmodal/xmodal:0.1.0"

    input:
    tuple val(meta), path(files, stageAs: 'input?/*')

    output:
    tuple val(meta), path("*.check.json"), emit: json
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    xmodal check \\
        ${args} \\
        --threads ${task.cpus} \\
        --device cpu \\
        --json ${prefix}.check.json \\
        ${files}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    echo '{}' > ${prefix}.check.json
    """
}
