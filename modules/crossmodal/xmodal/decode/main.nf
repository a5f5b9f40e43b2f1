process XMODAL_DECODE {
    tag "${meta.id}"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "${ task.accelerator ? 'ghcr.io/crossmodal/xmodal:0.1.0-cuda' : 'ghcr.io/crossmodal/xmodal:0.1.0' }"

    input:
    // latent: what XMODAL_PREDICT wrote with ext.args '--output-kind latent'; checkpoint: the one it had
    tuple val(meta), path(latent, stageAs: 'input/*'), path(checkpoint, stageAs: 'checkpoint/*')

    output:
    tuple val(meta), path("*.h5ad"), emit: h5ad
    tuple val(meta), path("*.json"), emit: json
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def device = task.accelerator ? 'cuda' : 'cpu'
    """
    xmodal decode \\
        ${args} \\
        --overwrite \\
        --checkpoint ${checkpoint} \\
        --threads ${task.cpus} \\
        --device ${device} \\
        --output ${prefix}.h5ad \\
        --summary ${prefix}.json \\
        ${latent}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.h5ad
    echo '{}' > ${prefix}.json
    """
}
