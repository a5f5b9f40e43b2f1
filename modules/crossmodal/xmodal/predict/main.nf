process XMODAL_PREDICT {
    tag "${meta.id}"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "${ task.accelerator ? 'ghcr.io/crossmodal/xmodal:0.1.0-cuda' : 'ghcr.io/crossmodal/xmodal:0.1.0' }"

    input:
    // source: '' for all that is there, where target is the column of obs that the model learned to tell
    // split: predict these cells only (train, valid, test), or ''; shard: a part of them such as '1/4', or ''
    tuple val(meta), path(cells, stageAs: 'input/*'), path(checkpoint, stageAs: 'checkpoint/*'), val(source), val(target), val(split), val(shard)

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
    def chosen = [source ? "--from ${source}" : '', split ? "--split ${split}" : '', shard ? "--shard ${shard}" : ''].join(' ').trim()
    """
    xmodal predict \\
        ${args} \\
        --overwrite \\
        ${chosen} \\
        --to ${target} \\
        --checkpoint ${checkpoint} \\
        --threads ${task.cpus} \\
        --device ${device} \\
        --output ${prefix}.h5ad \\
        --summary ${prefix}.json \\
        ${cells}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.h5ad
    echo '{}' > ${prefix}.json
    """
}
