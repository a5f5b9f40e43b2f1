process XMODAL_EMBED {
    tag "${meta.id}"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "${ task.accelerator ? 'ghcr.io/crossmodal/xmodal:0.1.0-cuda' : 'ghcr.io/crossmodal/xmodal:0.1.0' }"

    input:
    // split: embed these cells only (train, valid, test), or ''
    tuple val(meta), path(cells, stageAs: 'input/*'), path(checkpoint, stageAs: 'checkpoint/*'), val(split)

    output:
    tuple val(meta), path("*.h5mu")                  , emit: h5mu
    tuple val(meta), path("${prefix}")               , emit: overview
    tuple val(meta), path("${prefix}/embedding.tsv") , emit: table
    tuple val(meta), path("${prefix}/embedding.json"), emit: json
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def device = task.accelerator ? 'cuda' : 'cpu'
    def chosen = split ? "--split ${split}" : ''
    """
    xmodal embed \\
        ${args} \\
        --overwrite \\
        ${chosen} \\
        --checkpoint ${checkpoint} \\
        --threads ${task.cpus} \\
        --device ${device} \\
        --output ${prefix}.h5mu \\
        --overview ${prefix} \\
        ${cells}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p ${prefix}
    touch ${prefix}.h5mu ${prefix}/embedding.png ${prefix}/embedding.tsv ${prefix}/clusters.tsv
    echo '{}' > ${prefix}/embedding.json
    """
}
