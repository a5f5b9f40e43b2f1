process XMODAL_MARKERS {
    tag "${meta.id}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/crossmodal/xmodal:0.1.0"

    input:
    tuple val(meta), path(cells, stageAs: 'input/*')

    output:
    tuple val(meta), path("${prefix}")             , emit: markers
    tuple val(meta), path("${prefix}/markers.tsv") , emit: table
    tuple val(meta), path("${prefix}/markers.json"), emit: json
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    xmodal markers \\
        ${args} \\
        --overwrite \\
        --threads ${task.cpus} \\
        --device cpu \\
        --output-dir ${prefix} \\
        ${cells}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p ${prefix}
    touch ${prefix}/markers.tsv
    echo '{}' > ${prefix}/markers.json
    """
}
