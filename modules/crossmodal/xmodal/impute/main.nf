process XMODAL_IMPUTE {
    tag "${meta.id}"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "${ task.accelerator ? 'ghcr.io/crossmodal/xmodal:0.1.0-cuda' : 'ghcr.io/crossmodal/xmodal:0.1.0' }"

    input:
    tuple val(meta), path(cells, stageAs: 'input/*'), path(checkpoint, stageAs: 'checkpoint/*')

    output:
    tuple val(meta), path("*.h5mu")       , emit: h5mu
    tuple val(meta), path("*.impute.json"), emit: json
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def device = task.accelerator ? 'cuda' : 'cpu'
    """
    xmodal impute \\
        ${args} \\
        --overwrite \\
        --checkpoint ${checkpoint} \\
        --threads ${task.cpus} \\
        --device ${device} \\
        --output ${prefix}.h5mu \\
        --summary ${prefix}.impute.json \\
        ${cells}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.h5mu
    echo '{}' > ${prefix}.impute.json
    """
}
