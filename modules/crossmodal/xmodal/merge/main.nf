process XMODAL_MERGE {
    tag "${meta.id}"
    label 'process_low'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/crossmodal/xmodal:0.1.0"

    input:
    // parts: predictions of consecutive row ranges, in the order of the rows
    tuple val(meta), path(parts, stageAs: 'part?/*')

    output:
    tuple val(meta), path("*.h5ad"), emit: h5ad
    tuple val(meta), path("*.json"), emit: json
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    xmodal merge \\
        ${args} \\
        --overwrite \\
        --threads ${task.cpus} \\
        --device cpu \\
        --output ${prefix}.h5ad \\
        --summary ${prefix}.json \\
        ${parts}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.h5ad
    echo '{}' > ${prefix}.json
    """
}
